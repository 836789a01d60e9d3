//go:build !streaming

package main

import (
	"context"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
)

type (
	BytesValue  = types.BytesValue
	Int64Value  = types.Int64Value
	StringValue = types.StringValue
)

func register(server *ttrpc.Server) { server.Register(service, methods) }

// callStreams does what this library can do beyond: send a request that is too large. (Newer ones refuse to.)
func callStreams(ctx context.Context, client *ttrpc.Client) {
	response := &BytesValue{}
	err := client.Call(ctx, service, "Echo", &BytesValue{Value: make([]byte, 5<<20)}, response)
	report("echo oversize", len(response.Value), err)
	err = client.Call(ctx, service, "Echo", &BytesValue{Value: []byte("hello")}, response)
	report("echo after oversize", len(response.Value), err)
}
