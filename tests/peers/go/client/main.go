// Command client is a subscriber as karmor is one: grpc-go, a HealthCheck, then a feed with a filter.
// See ../README.md for the flags and what it prints.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"relay.example/peers/secure"
	"relay.example/peers/wire"
)

var (
	server      = flag.String("server", "127.0.0.1:32767", "address to subscribe at")
	feedName    = flag.String("feed", "logs", "feed to watch")
	filter      = flag.String("filter", "", "filter of the request")
	count       = flag.Uint64("count", 0, "events after which a stream is left; 0 is without end")
	duration    = flag.Duration("duration", 0, "time after which every stream is left; 0 is without end")
	quiet       = flag.Duration("quiet", 0, "leave a stream when no event came for one to two times this long after its first; 0 is never")
	pause       = flag.Duration("pause", 0, "wait after each event: a slow reader")
	connections = flag.Int("connections", 1, "connections, each with its own HealthCheck")
	streams     = flag.Int("streams", 1, "streams on each connection")
	window      = flag.Int("window", 0, "flow-control window of streams and connections in bytes; 0 is grpc-go's choice")
	name        = flag.String("tls-name", "", "what the server's certificate must be good for; the server's address without it")
	fallback    = flag.Bool("fallback", false, "as karmor: without TLS first, with it when that fails after a connection was made")
)

// histogram counts durations in buckets that are 1/32 of their value wide, which is what a percentile needs.
type histogram struct {
	buckets [64 * 32]uint64
	total   uint64
	highest int64
}

func (h *histogram) add(value int64) {
	value = max(value, 0)
	h.highest = max(h.highest, value)
	h.total++
	h.buckets[bucketOf(value)]++
}

// bucketOf keeps values below 32 as they are and the five bits after the leading one of all others.
func bucketOf(value int64) int {
	if value < 32 {
		return int(value)
	}
	shift := bits.Len64(uint64(value)) - 6
	return shift*32 + int(value>>shift)
}

// percentile is the upper edge of the bucket that holds it, in nanoseconds.
func (h *histogram) percentile(p float64) int64 {
	left := uint64(float64(h.total) * p)
	for bucket, n := range h.buckets {
		if n > left {
			if bucket < 64 {
				return int64(bucket)
			}
			shift := bucket/32 - 1
			return min(int64(bucket-shift*32+1)<<shift, h.highest)
		}
		left -= n
	}
	return h.highest
}

// result is what one stream saw.
type result struct {
	Events     uint64  `json:"events"`
	Bytes      uint64  `json:"bytes"`
	Missing    uint64  `json:"missing"`    // numbers that were jumped over, per host
	Disordered uint64  `json:"disordered"` // numbers that went back, per host
	Seconds    float64 `json:"seconds"`    // from the first event to the last
	Code       string  `json:"code"`
	Text       string  `json:"text"`
	Lost       string  `json:"relay_lost"` // the trailer, "" without one
	latency    histogram
}

// note takes one event into account.
func (r *result) note(head *wire.Head, now time.Time, next map[string]uint64) {
	r.Events++
	r.Bytes += uint64(head.Size)
	stamped, ok := head.Read()
	if !ok {
		return
	}
	r.latency.add(now.UnixNano() - stamped.Nanoseconds)
	if expected, seen := next[stamped.Host]; seen && stamped.Count > expected {
		r.Missing += stamped.Count - expected
	} else if seen && stamped.Count < expected {
		r.Disordered++
	}
	next[stamped.Host] = stamped.Count + 1
}

// watch subscribes once and reads until told to leave, or until the server ends the stream.
func watch(parent context.Context, connection *grpc.ClientConn, feed int, subscribed func()) *result {
	r := &result{}
	ctx, leave := context.WithCancel(parent)
	defer leave()
	description := &grpc.StreamDesc{StreamName: wire.Watch[feed], ServerStreams: true}
	stream, err := connection.NewStream(ctx, description, "/"+wire.Service+"/"+wire.Watch[feed])
	if err == nil {
		err = stream.SendMsg(wire.StringMessage(*filter))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		r.Code, r.Text = status.Code(err).String(), status.Convert(err).Message()
		return r
	}
	go func() {
		if _, err := stream.Header(); err == nil {
			subscribed()
		}
	}()
	var seen atomic.Uint64
	if *quiet > 0 {
		go leaveWhenQuiet(ctx, &seen, leave)
	}
	var first, last time.Time
	next := map[string]uint64{}
	head := &wire.Head{}
	for {
		if err := stream.RecvMsg(head); err != nil {
			r.Code, r.Text = status.Code(err).String(), status.Convert(err).Message()
			if err.Error() == "EOF" {
				r.Code, r.Text = "OK", ""
			}
			break
		}
		last = time.Now()
		if r.Events == 0 {
			first = last
		}
		r.note(head, last, next)
		seen.Store(r.Events)
		if *count > 0 && r.Events >= *count {
			leave()
			r.Code, r.Text = "OK", "left after the events asked for"
			break
		}
		if *pause > 0 {
			time.Sleep(*pause)
		}
	}
	if r.Events > 0 {
		r.Seconds = last.Sub(first).Seconds()
	}
	if lost := stream.Trailer().Get("relay-lost"); len(lost) > 0 {
		r.Lost = lost[0]
	}
	return r
}

// leaveWhenQuiet looks once in each quiet time, so that a busy reader pays nothing for it: it leaves after one to two of them.
func leaveWhenQuiet(ctx context.Context, seen *atomic.Uint64, leave func()) {
	ticker := time.NewTicker(*quiet)
	defer ticker.Stop()
	for before := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := seen.Load()
		if now > 0 && now == before {
			leave()
			return
		}
		before = now
	}
}

// transport is what the flags say of TLS.
func transport() (credentials.TransportCredentials, error) {
	if !secure.Wanted() {
		return insecure.NewCredentials(), nil
	}
	checked := *name
	if checked == "" {
		var err error
		if checked, _, err = net.SplitHostPort(*server); err != nil {
			return nil, err
		}
	}
	config, err := secure.Client(checked)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

// connect makes a connection, in karmor's way if asked to: what karmor tells a server that speaks TLS by is that the
// error of an attempt without it does not say "Error while dialing". That error is handed back, too, "" without one.
func connect(ctx context.Context) (*grpc.ClientConn, string, error) {
	refused := ""
	if *fallback {
		connection, err := dial(ctx, insecure.NewCredentials())
		if err == nil || strings.Contains(err.Error(), "Error while dialing") {
			return connection, "", err
		}
		refused = err.Error()
	}
	chosen, err := transport()
	if err != nil {
		return nil, refused, err
	}
	connection, err := dial(ctx, chosen)
	return connection, refused, err
}

// dial makes a connection and checks the server's health as karmor does.
func dial(ctx context.Context, chosen credentials.TransportCredentials) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(chosen),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec{})),
	}
	if *window > 0 {
		options = append(options, grpc.WithInitialWindowSize(int32(*window)), grpc.WithInitialConnWindowSize(int32(*window)))
	}
	connection, err := grpc.NewClient("passthrough:///"+*server, options...)
	if err != nil {
		return nil, err
	}
	nonce := rand.Int32()
	var reply []byte
	within, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = connection.Invoke(within, "/"+wire.Service+"/HealthCheck", wire.Int32Message(nonce), &reply)
	if err != nil {
		err = fmt.Errorf("HealthCheck: %w", err)
	} else if answer := wire.FirstInt32(reply); answer != nonce {
		err = fmt.Errorf("HealthCheck: asked with %d, answered %d", nonce, answer)
	}
	if err != nil {
		connection.Close()
		return nil, err
	}
	return connection, nil
}

func run() error {
	feed := slices.Index(wire.Feeds[:], *feedName)
	if feed < 0 {
		return fmt.Errorf("%q is no feed; the feeds are %s", *feedName, strings.Join(wire.Feeds[:], ", "))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	out := json.NewEncoder(os.Stdout)
	total := *connections * *streams
	var ready sync.WaitGroup
	ready.Add(total)
	var saying sync.Mutex
	over := false
	go func() {
		ready.Wait()
		saying.Lock()
		defer saying.Unlock()
		if !over {
			out.Encode(map[string]any{"subscribed": total})
		}
	}()
	results := make([]*result, total)
	refusals := []string{}
	var readers sync.WaitGroup
	for c := range *connections {
		connection, refused, err := connect(ctx)
		if err != nil {
			return err
		}
		if refused != "" {
			refusals = append(refusals, refused)
		}
		defer connection.Close()
		for s := range *streams {
			readers.Add(1)
			go func() {
				defer readers.Done()
				results[c**streams+s] = watch(ctx, connection, feed, ready.Done)
			}()
		}
	}
	readers.Wait()
	saying.Lock()
	over = true // its last line is the last
	saying.Unlock()
	said := summary(results)
	if *fallback {
		said["refusals"] = refusals
	}
	return out.Encode(said)
}

// summary adds the streams up; a single stream's code and text are given as they are.
func summary(results []*result) map[string]any {
	var sum result
	codes := map[string]int{}
	for _, r := range results {
		sum.Events += r.Events
		sum.Bytes += r.Bytes
		sum.Missing += r.Missing
		sum.Disordered += r.Disordered
		sum.Seconds = max(sum.Seconds, r.Seconds)
		codes[r.Code]++
		for bucket, n := range r.latency.buckets {
			sum.latency.buckets[bucket] += n
		}
		sum.latency.total += r.latency.total
		sum.latency.highest = max(sum.latency.highest, r.latency.highest)
	}
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	line := map[string]any{
		"streams": len(results), "events": sum.Events, "bytes": sum.Bytes, "missing": sum.Missing, "disordered": sum.Disordered,
		"seconds": sum.Seconds, "codes": codes, "cpu_seconds": cpu,
		"p50_us": float64(sum.latency.percentile(0.50)) / 1e3, "p90_us": float64(sum.latency.percentile(0.90)) / 1e3,
		"p99_us": float64(sum.latency.percentile(0.99)) / 1e3, "max_us": float64(sum.latency.highest) / 1e3,
	}
	if len(results) == 1 {
		line["code"], line["text"], line["relay_lost"] = results[0].Code, results[0].Text, results[0].Lost
	} else {
		line["each"] = results
	}
	return line
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}
