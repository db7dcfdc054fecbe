// Command node is a KubeArmor node as the relay meets it: grpc-go's server with the keepalive settings of KubeArmor's
// feeder and grpc-go's default policy against pings. See ../README.md for the flags and what it prints.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"relay.example/peers/secure"
	"relay.example/peers/wire"
)

var (
	bind        = flag.String("bind", "127.0.0.1", "address to listen on")
	port        = flag.Int("port", 0, "port of the first node, the others follow it; 0 lets the system choose")
	nodes       = flag.Int("nodes", 1, "nodes in this process, each on a port of its own")
	feeds       = flag.String("feeds", "messages,alerts,logs", "feeds that are served; the others answer UNIMPLEMENTED")
	send        = flag.String("send", "logs", "feeds on which events are sent; the other served feeds stay silent")
	rate        = flag.Float64("rate", 0, "events a second for each node and feed; 0 is as fast as the stream takes them")
	size        = flag.Int("size", 768, "bytes of a generated event")
	count       = flag.Uint64("count", 0, "events for each stream; 0 is without end")
	then        = flag.String("then", "hold", "after the last event: hold the stream open, or end it with ok or unavailable")
	gate        = flag.Bool("gate", false, "send nothing before a line arrives on standard input")
	nonce       = flag.Int("nonce-offset", 0, "added to the nonce that HealthCheck echoes: anything but 0 is a wrong answer")
	pingTime    = flag.Duration("ping-time", time.Second, "silence after which a client is pinged")
	pingTimeout = flag.Duration("ping-timeout", 5*time.Second, "time that the client has to answer")
	host        = flag.String("host", "node", "HostName in generated events; the node's index follows it")
	files       [len(wire.Feeds)]*string
)

// totals are kept over all nodes, for the closing line.
var totals struct {
	sent        [len(wire.Feeds)]atomic.Uint64
	bytes       atomic.Uint64
	streams     atomic.Uint64
	checks      atomic.Uint64
	connections atomic.Int64
	closed      atomic.Int64
}

// node is one server; it implements the handlers of the service description below.
type node struct {
	index  int
	opened chan struct{} // closed when events may flow
	events [len(wire.Feeds)][][]byte
}

func (n *node) healthCheck(_ context.Context, request []byte) ([]byte, error) {
	totals.checks.Add(1)
	return wire.Int32Message(wire.FirstInt32(request) + int32(*nonce)), nil
}

// watch sends one feed's events on one stream, each in a SendMsg of its own, as KubeArmor does.
func (n *node) watch(feed int, stream grpc.ServerStream) error {
	var request []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	totals.streams.Add(1)
	if !slices.Contains(strings.Split(*send, ","), wire.Feeds[feed]) {
		<-stream.Context().Done()
		return nil
	}
	select {
	case <-n.opened:
	case <-stream.Context().Done():
		return nil
	}
	if err := n.pour(feed, stream); err != nil {
		return err
	}
	switch *then {
	case "ok":
		return nil
	case "unavailable":
		return status.Error(codes.Unavailable, "the node was told to end the stream")
	}
	<-stream.Context().Done()
	return nil
}

// pour sends at the rate asked for. It sleeps until the next event is due and then sends all that are: the
// runtime's timers have a grain of about a millisecond, so high rates come in small bursts, as they do from a node.
func (n *node) pour(feed int, stream grpc.ServerStream) error {
	template, err := wire.Template(feed, fmt.Sprintf("%s-%d", *host, n.index), *size)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	began := time.Now()
	for number := uint64(0); *count == 0 || number < *count; number++ {
		if *rate > 0 {
			due := began.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 {
				select {
				case <-time.After(wait):
				case <-stream.Context().Done():
					return nil
				}
			}
		}
		event := n.next(feed, template, number)
		if err := stream.SendMsg(event); err != nil {
			return nil // the client is gone: that is its right
		}
		totals.sent[feed].Add(1)
		totals.bytes.Add(uint64(len(event)))
	}
	return nil
}

// next is the feed's event of that number: from its file, in turn, or generated.
func (n *node) next(feed int, template []byte, number uint64) []byte {
	if events := n.events[feed]; len(events) > 0 {
		return events[number%uint64(len(events))]
	}
	return wire.Stamp(template, time.Now().UnixNano(), number)
}

// describe is the service without generated code; a feed that is not served is left out, so that grpc-go answers UNIMPLEMENTED.
func describe() *grpc.ServiceDesc {
	service := &grpc.ServiceDesc{
		ServiceName: wire.Service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "HealthCheck",
			Handler: func(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var request []byte
				if err := decode(&request); err != nil {
					return nil, err
				}
				return server.(*node).healthCheck(ctx, request)
			},
		}},
	}
	for feed, name := range wire.Feeds {
		if slices.Contains(strings.Split(*feeds, ","), name) {
			service.Streams = append(service.Streams, grpc.StreamDesc{
				StreamName:    wire.Watch[feed],
				ServerStreams: true,
				Handler:       func(server any, stream grpc.ServerStream) error { return server.(*node).watch(feed, stream) },
			})
		}
	}
	return service
}

// connections counts what grpc-go accepts and loses.
type connections struct{}

func (connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (connections) HandleRPC(context.Context, stats.RPCStats)                         {}
func (connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (connections) HandleConn(_ context.Context, what stats.ConnStats) {
	switch what.(type) {
	case *stats.ConnBegin:
		totals.connections.Add(1)
	case *stats.ConnEnd:
		totals.closed.Add(1)
	}
}

// serve starts one node and returns its port.
func serve(index int, opened chan struct{}, events [len(wire.Feeds)][][]byte) (int, *grpc.Server, error) {
	at := 0
	if *port > 0 {
		at = *port + index
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(*bind, fmt.Sprint(at)))
	if err != nil {
		return 0, nil, err
	}
	options := []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: *pingTime, Timeout: *pingTimeout}),
		grpc.ForceServerCodecV2(wire.Codec{}),
	}
	if *nodes == 1 {
		options = append(options, grpc.StatsHandler(connections{}))
	}
	if secure.Wanted() {
		config, err := secure.Server()
		if err != nil {
			return 0, nil, err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(describe(), &node{index: index, opened: opened, events: events})
	go server.Serve(listener)
	return listener.Addr().(*net.TCPAddr).Port, server, nil
}

func run() error {
	for _, chosen := range []string{*feeds, *send} {
		for _, name := range strings.Split(chosen, ",") {
			if name != "" && !slices.Contains(wire.Feeds[:], name) {
				return fmt.Errorf("%q is no feed; the feeds are %s", name, strings.Join(wire.Feeds[:], ", "))
			}
		}
	}
	if !slices.Contains([]string{"hold", "ok", "unavailable"}, *then) {
		return fmt.Errorf("-then %q: it is hold, ok or unavailable", *then)
	}
	var events [len(wire.Feeds)][][]byte
	for feed, path := range files {
		if *path != "" {
			var err error
			if events[feed], err = wire.ReadFrames(*path); err != nil {
				return err
			}
		}
	}
	opened := make(chan struct{})
	var ports []int
	for index := range *nodes {
		at, server, err := serve(index, opened, events)
		if err != nil {
			return err
		}
		defer server.Stop()
		ports = append(ports, at)
	}
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]any{"ports": ports})
	if *gate {
		go func() {
			bufio.NewReader(os.Stdin).ReadString('\n')
			close(opened)
		}()
	} else {
		close(opened)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	sent := map[string]uint64{}
	for feed, name := range wire.Feeds {
		sent[name] = totals.sent[feed].Load()
	}
	return out.Encode(map[string]any{
		"sent": sent, "bytes": totals.bytes.Load(), "streams": totals.streams.Load(), "checks": totals.checks.Load(),
		"connections": totals.connections.Load(), "closed": totals.closed.Load(),
	})
}

func main() {
	for feed, name := range wire.Feeds {
		files[feed] = flag.String(name, "", "file of gRPC frames to send on this feed, in turn, instead of generated events")
	}
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(2)
	}
}
