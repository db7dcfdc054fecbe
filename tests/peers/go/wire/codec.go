// Package wire is what the node and the client share: the service's names and a codec that leaves messages as bytes,
// so that the module needs no generated code and the peers spend their time in grpc-go, not in protobuf.
package wire

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Service is the full name of KubeArmor's feeder service.
const Service = "feeder.LogService"

// Feeds in the project's numbering: the index is the feed's number.
var Feeds = [...]string{"messages", "alerts", "logs"}

// Watch are the streaming methods, by feed number.
var Watch = [...]string{"WatchMessages", "WatchAlerts", "WatchLogs"}

// HeadBytes of each event are kept by a receiver that asks for a Head: enough for the fields that Stamp writes.
const HeadBytes = 160

// Head is a received event of which only the beginning is kept.
type Head struct {
	Bytes [HeadBytes]byte
	Kept  int
	Size  int
}

// Codec passes []byte through as messages; it calls itself "proto" because that is what it carries.
type Codec struct{}

// Name makes the content type application/grpc+proto, as every KubeArmor peer has it.
func (Codec) Name() string { return "proto" }

// Marshal takes a []byte that must not change afterwards: grpc-go writes it later.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T, only []byte", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal fills a *[]byte with the message, or a *Head with its beginning.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch into := v.(type) {
	case *[]byte:
		*into = data.Materialize()
	case *Head:
		into.Kept, into.Size = 0, data.Len()
		for _, part := range data {
			if into.Kept == HeadBytes {
				break
			}
			into.Kept += copy(into.Bytes[into.Kept:], part.ReadOnlyData())
		}
	default:
		return fmt.Errorf("cannot receive into a %T", v)
	}
	return nil
}

// Int32Message encodes a message whose field 1 is an int32: NonceMessage and ReplyMessage.
func Int32Message(value int32) []byte {
	if value == 0 {
		return []byte{}
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(int64(value)))
}

// StringMessage encodes a message whose field 1 is a string: RequestMessage.
func StringMessage(value string) []byte {
	if value == "" {
		return []byte{}
	}
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), value)
}

// FirstInt32 reads field 1 as an int32, 0 where it is missing.
func FirstInt32(message []byte) int32 {
	var value int32
	eachField(message, func(number protowire.Number, varint uint64, _ []byte) {
		if number == 1 {
			value = int32(varint)
		}
	})
	return value
}

// FirstString reads field 1 as a string, "" where it is missing.
func FirstString(message []byte) string {
	var value string
	eachField(message, func(number protowire.Number, _ uint64, text []byte) {
		if number == 1 {
			value = string(text)
		}
	})
	return value
}

// eachField walks the varint and length-delimited fields until the end or the first thing that is cut off.
func eachField(message []byte, visit func(protowire.Number, uint64, []byte)) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		switch kind {
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(message)
			if n < 0 {
				return
			}
			visit(number, value, nil)
			message = message[n:]
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return
			}
			visit(number, 0, value)
			message = message[n:]
		default:
			n := protowire.ConsumeFieldValue(number, kind, message)
			if n < 0 {
				return
			}
			message = message[n:]
		}
	}
}
