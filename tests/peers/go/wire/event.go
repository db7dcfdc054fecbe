package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Where Stamp writes: every template begins with Timestamp (field 1, a nine-byte varint of Unix nanoseconds)
// and UpdatedTime (field 2, the event's number in twenty digits).
const (
	stampAt     = 1
	stampBytes  = 9
	numberAt    = stampAt + stampBytes + 2
	numberBytes = 20
)

// text appends a string field.
func text(b []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}

// number appends a varint field.
func number(b []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}

// Template makes an event of a feed with exactly `size` bytes, ready for Stamp.
func Template(feed int, host string, size int) ([]byte, error) {
	b := number(nil, 1, 1<<60)
	b = text(b, 2, strings.Repeat("0", numberBytes))
	b = text(b, 3, "default")
	b = text(b, 4, host)
	var filler protowire.Number
	switch Feeds[feed] {
	case "messages":
		b = text(b, 5, "10.0.0.1")
		b = text(b, 6, "message")
		b = text(b, 7, "INFO")
		filler = 8
	case "alerts":
		b = text(b, 5, "wordpress-mysql")
		b = text(b, 6, "wordpress-6c9d7c6f9b-x2x5p")
		b = number(b, 11, 4711)
		b = text(b, 13, "ksp-block-sa-token")
		b = text(b, 14, "5")
		b = text(b, 17, "MatchedPolicy")
		b = text(b, 19, "File")
		b = text(b, 21, "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY")
		b = text(b, 22, "Block")
		b = text(b, 23, "Permission denied")
		b = text(b, 26, "/bin/cat")
		b = text(b, 36, "")
		filler = 20
	default:
		b = text(b, 5, "wordpress-mysql")
		b = text(b, 6, "wordpress-6c9d7c6f9b-x2x5p")
		b = text(b, 7, strings.Repeat("7b", 32))
		b = number(b, 11, 4711)
		b = text(b, 13, "ContainerLog")
		b = text(b, 14, "/bin/cat")
		b = text(b, 15, "File")
		b = text(b, 17, "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY")
		b = text(b, 18, "Passed")
		b = text(b, 21, "/bin/cat")
		b = text(b, 27, "")
		filler = 16
	}
	for rest := size - len(b); rest > 0; rest-- {
		if with := text(b[:len(b):len(b)], filler, strings.Repeat("r", rest)); len(with) == size {
			return with, nil
		}
	}
	if len(b) == size {
		return b, nil
	}
	return nil, fmt.Errorf("no %s event has exactly %d bytes; the smallest has %d", Feeds[feed], size, len(b))
}

// Stamp returns a copy of a template that carries the time and the event's number.
func Stamp(template []byte, nanoseconds int64, count uint64) []byte {
	event := make([]byte, len(template))
	copy(event, template)
	at := uint64(nanoseconds)
	for i := 0; i < stampBytes-1; i++ {
		event[stampAt+i] = byte(at) | 0x80
		at >>= 7
	}
	event[stampAt+stampBytes-1] = byte(at)
	for i := numberBytes - 1; i >= 0; i-- {
		event[numberAt+i] = byte('0' + count%10)
		count /= 10
	}
	return event
}

// Stamped is what a receiver reads back from a Head.
type Stamped struct {
	Nanoseconds int64
	Count       uint64
	Host        string
}

// Read finds the fields that Stamp and Template wrote; ok is false for any other event.
func (h *Head) Read() (s Stamped, ok bool) {
	b := h.Bytes[:h.Kept]
	if len(b) < numberAt+numberBytes || b[0] != 0x08 || b[numberAt-2] != 0x12 || b[numberAt-1] != numberBytes {
		return s, false
	}
	at, n := protowire.ConsumeVarint(b[stampAt:])
	if n != stampBytes {
		return s, false
	}
	s.Nanoseconds = int64(at)
	for _, digit := range b[numberAt : numberAt+numberBytes] {
		s.Count = s.Count*10 + uint64(digit-'0')
	}
	rest := b[numberAt+numberBytes:]
	for len(rest) > 0 {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 || kind != protowire.BytesType {
			break
		}
		value, m := protowire.ConsumeBytes(rest[n:])
		if m < 0 {
			break
		}
		if field == 4 {
			s.Host = string(value)
			break
		}
		rest = rest[n+m:]
	}
	return s, true
}

// ReadFrames reads a file of gRPC frames (a zero byte, the length as big-endian uint32, the event) laid back to back.
func ReadFrames(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var events [][]byte
	for {
		var prefix [5]byte
		if _, err := io.ReadFull(file, prefix[:]); err == io.EOF {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: frame %d: %w", path, len(events), err)
		}
		event := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
		if _, err := io.ReadFull(file, event); err != nil {
			return nil, fmt.Errorf("%s: frame %d: %w", path, len(events), err)
		}
		events = append(events, event)
	}
}
