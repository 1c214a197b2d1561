package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	dtmsv1 "dtms/clients/go/gen/dtms/v1"
)

// Copies of proto/dtms/v1, shared by the clients of all languages (make proto-go).
var (
	//go:embed gen/service_config.json
	serviceConfig string
	//go:embed gen/timeouts.json
	timeoutsJSON []byte
)

// client of one service: a channel, and the deadline of each unary method.
type client struct {
	channel  *grpc.ClientConn
	registry dtmsv1.RegistryServiceClient
	status   dtmsv1.TradeStatusServiceClient
	timeouts map[string]float64
}

func dial(address, token string) (*client, error) {
	var shared struct {
		Methods map[string]float64 `json:"methods"`
	}
	if err := json.Unmarshal(timeoutsJSON, &shared); err != nil {
		return nil, fmt.Errorf("timeouts.json: %w", err)
	}
	authorized := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	channel, err := grpc.NewClient(address,
		// Loopback speaks plain text; a service that listens elsewhere insists on TLS.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, channel *grpc.ClientConn,
			invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(authorized(ctx), method, request, reply, channel, options...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, description *grpc.StreamDesc, channel *grpc.ClientConn,
			method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(authorized(ctx), description, channel, method, options...)
		}),
	)
	if err != nil {
		return nil, err
	}
	return &client{
		channel:  channel,
		registry: dtmsv1.NewRegistryServiceClient(channel),
		status:   dtmsv1.NewTradeStatusServiceClient(channel),
		timeouts: shared.Methods,
	}, nil
}

func (c *client) close() {
	if err := c.channel.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "close:", err)
	}
}

// register is idempotent: the same trade again answers with the one that exists.
func (c *client) register(ctx context.Context, trade *dtmsv1.Registration) error {
	const method = "dtms.v1.RegistryService/RegisterTrade"
	seconds, known := c.timeouts[method]
	if !known {
		return fmt.Errorf("timeouts.json has no %s", method)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
	defer cancel()
	answer, err := c.registry.RegisterTrade(ctx, &dtmsv1.RegisterTradeRequest{Registration: trade})
	if err != nil {
		return err
	}
	registered := answer.GetTrade()
	fmt.Fprintf(os.Stderr, "trade %d of %s: %s, owner %q, created %t\n", registered.GetTicket(),
		registered.GetAccountId(), registered.GetState(), registered.GetManagedBy(), answer.GetCreated())
	return nil
}
