// Command json prints events as the Go relay does: decoded by Go protobuf into the structs that protoc-gen-go makes of
// the project's own contract, printed by encoding/json. It answers requests on standard input, in order, until that ends.
//
// A request is the feed's number (one byte), the event's size (big-endian uint32), and the event. An answer is one byte,
// the size of the text (big-endian uint32), and the text: 'j' and JSON; 'u' and the JSON of an event that Go refuses only
// because a string of it is not UTF-8; 'm' and the error of an event that cannot be read at all.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/proto"

	"relay.example/peers/feeder"
	"relay.example/peers/lenient"
)

// The messages of the feeds, by number: as they are, and with strings that are not looked at.
var (
	strict = [...]func() proto.Message{
		func() proto.Message { return new(feeder.Message) },
		func() proto.Message { return new(feeder.Alert) },
		func() proto.Message { return new(feeder.Log) },
	}
	anyText = [...]func() proto.Message{
		func() proto.Message { return new(lenient.Message) },
		func() proto.Message { return new(lenient.Alert) },
		func() proto.Message { return new(lenient.Log) },
	}
)

func printed(event []byte, message proto.Message) ([]byte, error) {
	if err := proto.Unmarshal(event, message); err != nil {
		return nil, err
	}
	return json.Marshal(message)
}

func answer(feed byte, event []byte) (byte, []byte) {
	if text, err := printed(event, strict[feed]()); err == nil {
		return 'j', text
	}
	text, err := printed(event, anyText[feed]())
	if err != nil {
		return 'm', []byte(err.Error())
	}
	return 'u', text
}

func serve(in io.Reader, out *bufio.Writer) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		event := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(in, event); err != nil {
			return err
		}
		said, text := answer(head[0], event)
		head[0] = said
		binary.BigEndian.PutUint32(head[1:], uint32(len(text)))
		out.Write(head[:])
		out.Write(text)
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

func main() {
	if err := serve(bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
