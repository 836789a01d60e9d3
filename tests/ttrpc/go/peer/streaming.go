//go:build streaming

package main

import (
	"context"
	"io"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type (
	BytesValue  = wrapperspb.BytesValue
	Int64Value  = wrapperspb.Int64Value
	StringValue = wrapperspb.StringValue
)

func register(server *ttrpc.Server) {
	server.RegisterService(service, &ttrpc.ServiceDesc{
		Methods: methods,
		Streams: map[string]ttrpc.Stream{
			"Sum":     {Handler: sum, StreamingClient: true},
			"Count":   {Handler: count, StreamingServer: true},
			"EchoAll": {Handler: echoAll, StreamingClient: true, StreamingServer: true},
		},
	})
}

func sum(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	total := &Int64Value{}
	for {
		number := &Int64Value{}
		if err := stream.RecvMsg(number); err == io.EOF {
			return total, nil
		} else if err != nil {
			return nil, err
		}
		total.Value += number.Value
	}
}

// count sends so many numbers, counting down.
func count(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	number := &Int64Value{}
	if err := stream.RecvMsg(number); err != nil {
		return nil, err
	}
	for ; number.Value > 0; number.Value-- {
		if err := stream.SendMsg(number); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func echoAll(ctx context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	for {
		message := &BytesValue{}
		if err := stream.RecvMsg(message); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if err := stream.SendMsg(message); err != nil {
			return nil, err
		}
	}
}

func callStreams(ctx context.Context, client *ttrpc.Client) {
	callSum(ctx, client)
	callCount(ctx, client, 100)
	callCount(ctx, client, 0)
	callCount(ctx, client, -1)
	callEchoAll(ctx, client)
}

func callSum(ctx context.Context, client *ttrpc.Client) {
	stream, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true}, service, "Sum", nil)
	for i := int64(0); err == nil && i <= 100; i++ {
		err = stream.SendMsg(&Int64Value{Value: i})
	}
	total := &Int64Value{}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil {
		err = stream.RecvMsg(total)
	}
	report("sum", total.Value, err)
}

func callCount(ctx context.Context, client *ttrpc.Client, from int64) {
	desc := &ttrpc.StreamDesc{StreamingServer: true}
	stream, err := client.NewStream(ctx, desc, service, "Count", &Int64Value{Value: from})
	received := 0
	for err == nil {
		if err = stream.RecvMsg(&Int64Value{}); err == nil {
			received++
		}
	}
	if err == io.EOF {
		err = nil
	}
	report("count", received, err)
}

// callEchoAll sends and receives in turn, an empty message among the others.
func callEchoAll(ctx context.Context, client *ttrpc.Client) {
	desc := &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}
	stream, err := client.NewStream(ctx, desc, service, "EchoAll", nil)
	right := 0
	for size := 0; err == nil && size < 100; size++ {
		message := &BytesValue{}
		if err = stream.SendMsg(&BytesValue{Value: make([]byte, size)}); err == nil {
			err = stream.RecvMsg(message)
		}
		if err == nil && len(message.Value) == size {
			right++
		}
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil {
		if err = stream.RecvMsg(&BytesValue{}); err == io.EOF {
			err = nil
		}
	}
	report("echo all", right, err)
}
