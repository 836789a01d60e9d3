// The other side of the interoperation tests, on containerd's own library: `peer serve SOCKET` answers the service
// interop.Peer until its standard input ends, `peer call SOCKET` calls it and writes what it saw, one JSON object a line.
//
// The library of Debian 12 is unary and on gogo's messages. With the build tag "streaming" a newer one is used.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const service = "interop.Peer"

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "call":
		err = call(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(path string) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	register(server)
	go server.Serve(context.Background(), listener)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return server.Close()
}

// methods are the unary ones.
var methods = map[string]ttrpc.Method{
	"Echo": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		request := &BytesValue{}
		return request, unmarshal(request)
	},
	"Fail": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		request := &Int64Value{}
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		return nil, status.Error(codes.Code(request.Value), "as told")
	},
	// Answers after so many milliseconds; in vain if the caller's time is over before.
	"Delay": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		request := &Int64Value{}
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		select {
		case <-time.After(time.Duration(request.Value) * time.Millisecond):
			return request, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	},
	// Answers with so many bytes, too many for ttrpc or not.
	"Big": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		request := &Int64Value{}
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		return &BytesValue{Value: make([]byte, request.Value)}, nil
	},
	"Metadata": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
		request := &StringValue{}
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		value, _ := ttrpc.GetMetadataValue(ctx, request.Value)
		return &StringValue{Value: value}, nil
	},
}

// report writes one result: an error has a code, anything else is the value.
func report(name string, value interface{}, err error) {
	line := map[string]interface{}{"name": name, "value": value}
	if err != nil {
		line = map[string]interface{}{"name": name, "code": code(err), "message": err.Error()}
	}
	json.NewEncoder(os.Stdout).Encode(line)
}

func code(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded.String()
	}
	if errors.Is(err, ttrpc.ErrClosed) {
		return "Closed"
	}
	return status.Code(err).String()
}

func call(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	ctx := context.Background()

	callUnary(ctx, client)
	callStreams(ctx, client)
	return nil
}

func callUnary(ctx context.Context, client *ttrpc.Client) {
	echo := func(name string, value []byte) {
		response := &BytesValue{}
		err := client.Call(ctx, service, "Echo", &BytesValue{Value: value}, response)
		report(name, len(response.Value), err)
	}
	echo("echo", []byte("hello"))
	echo("echo empty", nil)
	echo("echo large", make([]byte, 4<<20-100))

	report("fail", nil, client.Call(ctx, service, "Fail", &Int64Value{Value: int64(codes.NotFound)}, &Int64Value{}))
	report("no method", nil, client.Call(ctx, service, "NoSuch", &Int64Value{}, &Int64Value{}))
	report("no service", nil, client.Call(ctx, "no.such.Service", "Echo", &Int64Value{}, &Int64Value{}))

	inTime, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	report("too late", nil, client.Call(inTime, service, "Delay", &Int64Value{Value: 60000}, &Int64Value{}))
	cancel()

	text := &StringValue{}
	withMetadata := ttrpc.WithMetadata(ctx, ttrpc.MD{"tenant": []string{"a"}})
	err := client.Call(withMetadata, service, "Metadata", &StringValue{Value: "tenant"}, text)
	report("metadata", text.Value, err)

	report("many at once", callMany(ctx, client), nil)
	echo("echo after all that", []byte("hello"))
}

// callMany returns how many of 200 concurrent calls got their own answer.
func callMany(ctx context.Context, client *ttrpc.Client) int {
	var group sync.WaitGroup
	right := make(chan bool, 200)
	for i := int64(0); i < 200; i++ {
		group.Add(1)
		go func(i int64) {
			defer group.Done()
			response := &Int64Value{}
			err := client.Call(ctx, service, "Delay", &Int64Value{Value: i % 7}, response)
			if err == nil && response.Value == i%7 {
				right <- true
			}
		}(i)
	}
	group.Wait()
	return len(right)
}
