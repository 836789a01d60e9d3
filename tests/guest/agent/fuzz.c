/*
 * fuzz SEED ROUNDS: the readers of what the host sends, fed with good input, mutated, in pieces of random size.
 *
 * Built with AddressSanitizer and UBSan, which end it when a reader leaves its bounds. Besides, every input must read the
 * same whatever the pieces: one at once, and cut at random.
 */
#include "address.h"
#include "entry.h"
#include "handshake.h"
#include "mount_options.h"
#include "pb.h"
#include "ttrpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INPUT 4096

static uint64_t random_state;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static size_t below(size_t limit)
{
	return next_random() % limit;
}

static uint64_t mix(uint64_t digest, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < len; i++)
		digest = (digest ^ bytes[i]) * UINT64_C(1099511628211);
	return digest;
}

/* Reads a message and, as far as they look like ones, the messages within. */
static uint64_t read_message(struct bytes message, unsigned depth)
{
	uint64_t digest = 7;
	struct pb_reader in = pb_read(message);
	for (struct pb_field field; pb_next(&in, &field);) {
		digest = mix(digest, &field.tag, sizeof field.tag);
		digest = mix(digest, &field.varint, sizeof field.varint);
		digest = mix(digest, field.bytes.at, field.bytes.len);
		if (depth > 0 && (field.tag & 7) == 2)
			digest ^= read_message(field.bytes, depth - 1);
	}
	return mix(digest, &in.broken, sizeof in.broken);
}

static uint64_t read_frames(struct frame_reader *reader, uint64_t digest, bool *broken)
{
	struct frame frame;
	for (;;) {
		enum frame_result result = frame_next(reader, &frame);
		if (result == FRAME_NONE)
			return digest;
		digest = mix(digest, &result, sizeof result);
		*broken = result == FRAME_BROKEN;
		if (*broken)
			return digest;
		digest = mix(digest, &frame.stream, sizeof frame.stream);
		digest = mix(digest, frame.payload.at, frame.payload.len);
		struct request request;
		if (result == FRAME_READY && request_parse(frame.payload, &request))
			digest = mix(digest, request.method.at, request.method.len) ^ read_message(request.payload, 3);
	}
}

/* `most` bytes at a time, at most. */
static uint64_t feed_frames(const uint8_t *input, size_t len, size_t most)
{
	struct frame_reader reader = {0};
	uint64_t digest = 1;
	bool broken = false;
	for (size_t at = 0; at < len && !broken;) {
		size_t piece = 1 + below(MIN(most, len - at));
		uint8_t *copy = malloc(piece); /* its own allocation, so that a byte too many is seen */
		memcpy(copy, input + at, piece);
		frame_feed(&reader, copy, piece);
		free(copy);
		digest = read_frames(&reader, digest, &broken);
		at += piece;
	}
	frame_reader_free(&reader);
	return digest;
}

static uint64_t feed_handshake(const uint8_t *input, size_t len, size_t most)
{
	struct handshake handshake = {0};
	struct bytes id = {0};
	size_t at = 0;
	for (size_t wanted; (wanted = handshake_wants(&handshake)) > 0 && at < len;) {
		size_t piece = 1 + below(MIN(MIN(most, wanted), len - at));
		handshake_feed(&handshake, input + at, piece);
		at += piece;
	}
	if (handshake_wants(&handshake) > 0)
		return 0;
	const char *refusal = handshake_id(&handshake, &id);
	if (handshake.len > sizeof handshake.in || id.len > STREAM_ID_MAX)
		abort();
	uint8_t answer[HANDSHAKE_ANSWER_MAX];
	if (refusal)
		id = (struct bytes){(const uint8_t *)refusal, strlen(refusal)};
	return mix(at, answer, handshake_answer(answer, id));
}

static void put_frame(struct buffer *out, const struct buffer *payload)
{
	uint8_t header[FRAME_HEADER] = {0, 0, (uint8_t)(payload->len >> 8), (uint8_t)payload->len, 0, 0, 0,
					(uint8_t)(2 * below(100) + 1), (uint8_t)(1 + below(3)), (uint8_t)below(8)};
	buffer_append(out, header, sizeof header);
	buffer_append(out, payload->at, payload->len);
}

static void make_frames(struct buffer *out)
{
	for (size_t n = 1 + below(4); n > 0; n--) {
		struct buffer inner = {0}, payload = {0};
		pb_put_string(&inner, 1, "process-id");
		pb_put_varint(&inner, 2, next_random());
		pb_put_bytes(&inner, 3, "\x0a\x03" "abc", 5);
		pb_put_string(&payload, 1, "sandbox_nb.process.v1.Process");
		pb_put_string(&payload, 2, "Start");
		pb_put_message(&payload, 3, &inner);
		pb_put_varint(&payload, 4, next_random());
		put_frame(out, &payload);
		buffer_free(&inner);
		buffer_free(&payload);
	}
}

static void make_handshake(struct buffer *out)
{
	uint8_t id[140];
	size_t len = below(sizeof id);
	memset(id, 'a', sizeof id);
	buffer_append(out, (uint8_t[]){0, 0, 0, (uint8_t)len}, 4);
	buffer_append(out, id, len);
}

static void mutate(struct buffer *input)
{
	for (size_t n = below(6); n > 0 && input->len > 0; n--)
		input->at[below(input->len)] = below(3) ? (uint8_t)next_random() : (uint8_t[]){0, 0x7f, 0x80, 0xff}[below(4)];
	if (input->len > 0 && below(4) == 0)
		input->len = 1 + below(input->len);
}

/* In an allocation of its own size, so that a byte too many is seen. */
static struct bytes tight_copy(const struct buffer *input)
{
	uint8_t *copy = malloc(input->len);
	memcpy(copy, input->at, input->len);
	return (struct bytes){copy, input->len};
}

/* What was taken for an address is written and read as the same one. */
static void read_address(struct bytes text, bool prefix)
{
	struct address address, again;
	char out[ADDRESS_TEXT_MAX];
	if (!address_parse(text, prefix, &address))
		return;
	address_text(&address, prefix, out);
	if (!address_parse((struct bytes){(uint8_t *)out, strlen(out)}, prefix, &again) ||
	    again.family != address.family || again.prefix != address.prefix)
		abort();
}

static void read_mac(struct bytes text)
{
	uint8_t mac[MAC_SIZE];
	char out[MAC_TEXT_MAX];
	if (!mac_parse(text, mac))
		return;
	mac_text(mac, out);
	for (size_t i = 0; i < text.len; i++)
		if ((text.at[i] | 0x20) != (out[i] | 0x20))
			abort();
}

/* Every option is a flag or, with its comma, in the data, which is a string of at most a page. */
static void read_options(struct bytes text)
{
	static struct mount_options options;
	options = (struct mount_options){0};
	for (unsigned n = below(60); n > 0; n--)
		mount_options_add(&options, text);
	if (strnlen(options.data, sizeof options.data) == sizeof options.data)
		abort();
}

static void check_texts(void)
{
	static const char *const texts[] = {
		"10.0.0.2/24", "fd00::2:3/64", "::ffff:1.2.3.4/128", "255.255.255.255", "52:54:00:00:0A:01",
		"ro,nosuid,,noatime,size=64k,x-mount=1,rbind,rprivate",
	};
	struct buffer input = {0};
	const char *text = texts[below(ARRAY_SIZE(texts))];
	buffer_append(&input, text, strlen(text));
	if (below(4))
		mutate(&input);
	struct bytes copy = tight_copy(&input);
	read_address(copy, below(2));
	read_mac(copy);
	read_options(copy);
	free((uint8_t *)copy.at);
	buffer_free(&input);
}

/* What is taken for an Entry has a name that is no path, and is written and read as the same one. */
static void check_entries(void)
{
	struct entry entry = {
		.name = {(const uint8_t *)"name/..", 1 + below(7)},
		.mode = (mode_t)next_random(),
		.size = next_random(),
		.mtime = {(time_t)next_random(), (long)below(1000000000)},
		.target = {(const uint8_t *)"../target", below(10)},
		.link = {(const uint8_t *)"link", below(5)},
	};
	struct entry again;
	struct buffer input = {0}, output = {0};
	entry_put(&input, &entry);
	if (below(4))
		mutate(&input);
	struct bytes copy = tight_copy(&input);
	if (entry_parse(copy, &again)) {
		if (again.name.len > 255 || (again.name.len > 0 && memchr(again.name.at, '/', again.name.len)))
			abort();
		entry_put(&output, &again);
		if (!entry_parse(bytes_of(&output), &entry) || entry.size != again.size || entry.mode != again.mode)
			abort();
	}
	free((uint8_t *)copy.at);
	buffer_free(&input);
	buffer_free(&output);
}

/* Behind a payload over the limit, of any size up to the reserved byte, the next frame is found again. */
static void check_too_large(void)
{
	size_t len = FRAME_MAX_PAYLOAD + 1 + below(FRAME_MAX_PAYLOAD), size = FRAME_HEADER + len;
	uint8_t *input = calloc(1, size + FRAME_HEADER);
	struct frame_reader reader = {0};
	struct frame frame;
	unsigned seen = 0;
	memcpy(input, (uint8_t[]){0, (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, 0, 0, 0, 1, 1}, 9);
	memcpy(input + size, (uint8_t[]){0, 0, 0, 0, 0, 0, 0, 3, 1}, 9);
	for (size_t at = 0; at < size + FRAME_HEADER;) {
		size_t piece = 1 + below(MIN(1 << 20, size + FRAME_HEADER - at));
		frame_feed(&reader, input + at, piece);
		for (enum frame_result result; (result = frame_next(&reader, &frame)) != FRAME_NONE; seen++)
			if (frame.stream != (seen ? 3 : 1) || result != (seen ? FRAME_READY : FRAME_TOO_LARGE))
				abort();
		if (reader.in.capacity > FRAME_MAX_PAYLOAD)
			abort(); /* what is skipped is not kept */
		at += piece;
	}
	if (seen != 2)
		abort();
	frame_reader_free(&reader);
	free(input);
}

static void check(const char *what, uint64_t one, uint64_t other, const struct buffer *input)
{
	if (one == other)
		return;
	fprintf(stderr, "%s: the pieces made a difference:", what);
	for (size_t i = 0; i < input->len; i++)
		fprintf(stderr, " %02x", input->at[i]);
	fprintf(stderr, "\n");
	exit(1);
}

int main(int argc, char **argv)
{
	random_state = argc > 1 ? strtoull(argv[1], NULL, 10) * 2 + 1 : 1;
	unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
	for (unsigned long round = 0; round < rounds; round++) {
		struct buffer input = {0};
		if (round % 2000 == 0)
			check_too_large();
		check_texts();
		check_entries();
		make_frames(&input);
		mutate(&input);
		check("frames", feed_frames(input.at, input.len, MAX_INPUT), feed_frames(input.at, input.len, 1 + below(20)),
		      &input);
		read_message(bytes_of(&input), 3);
		buffer_free(&input);
		make_handshake(&input);
		mutate(&input);
		check("handshake", feed_handshake(input.at, input.len, MAX_INPUT), feed_handshake(input.at, input.len, 3),
		      &input);
		buffer_free(&input);
	}
	printf("%lu rounds\n", rounds);
}
