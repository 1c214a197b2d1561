package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	dtmsv1 "dtms/clients/go/gen/dtms/v1"
)

const (
	// A restart of the service takes about a second; asking more often helps nobody.
	firstPause = 250 * time.Millisecond
	// Long enough to leave a service alone that is down, short enough to be back soon after it.
	longestPause = 5 * time.Second
)

// cursor is the next revision wanted; 0 asks for a snapshot first.
type cursor struct{ next uint64 }

// request asks for what is missing.
func (c *cursor) request() *dtmsv1.WatchRequest {
	return &dtmsv1.WatchRequest{StartRevision: c.next, Snapshot: c.next == 0}
}

// take prints one message and moves the cursor past what it covers.
func (c *cursor) take(message *dtmsv1.WatchResponse, out io.Writer) error {
	for _, trade := range message.GetSnapshot().GetTrades() {
		if err := printLine(out, trade); err != nil {
			return err
		}
	}
	if complete := message.GetSnapshot().GetCompleteAtRevision(); complete > 0 {
		c.next = complete + 1
	}
	for _, event := range message.GetEvents() {
		if err := printLine(out, event); err != nil {
			return err
		}
		c.next = event.GetRevision() + 1
	}
	if progress := message.GetProgress(); progress != nil && c.next > 0 {
		c.next = progress.GetRevision() + 1
	}
	return nil
}

func printLine(out io.Writer, message proto.Message) error {
	text, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}

// watch prints trades and events until ctx ends or the service refuses, and returns the next revision wanted. A break
// of the connection is resumed; events lost to compaction are replaced by a snapshot, and said so.
func (c *client) watch(ctx context.Context, from uint64, out io.Writer) (uint64, error) {
	at := cursor{next: from}
	pause := firstPause
	for {
		received, err := c.follow(ctx, &at, out)
		if ctx.Err() != nil {
			return at.next, ctx.Err()
		}
		switch status.Code(err) {
		case codes.Unavailable:
		case codes.OutOfRange:
			if at.next == 0 {
				return at.next, err
			}
			fmt.Fprintf(os.Stderr, "revision %d cannot be had (%v): beginning with a snapshot\n", at.next, err)
			at.next = 0
		default:
			return at.next, err
		}
		if received {
			pause = firstPause
		}
		fmt.Fprintf(os.Stderr, "%v: again from revision %d in %v\n", err, at.next, pause)
		select {
		case <-ctx.Done():
			return at.next, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// follow reads one stream to its end and says whether anything came.
func (c *client) follow(ctx context.Context, at *cursor, out io.Writer) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.status.Watch(ctx, at.request())
	if err != nil {
		return false, err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return received, status.Error(codes.Unavailable, "the service ended the stream")
		}
		if err != nil {
			return received, err
		}
		received = true
		if err := at.take(message, out); err != nil {
			return received, err
		}
	}
}
