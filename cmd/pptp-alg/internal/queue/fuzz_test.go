package queue

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// The kernel's tables in /proc: lines of any kind.
func FuzzTables(f *testing.F) {
	f.Add([]byte(" 1723  12345     0 2 65531     0     0        7  1\n"))
	f.Add([]byte("sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n0000000000000000 12 12345 00000000 0 0 0 2 0 778899\n"))
	f.Add([]byte("99999 1 2 3 4 5 6 7 8\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseKernels(bytes.NewReader(b))
		if err != nil && list != nil {
			t.Errorf("a list of %d besides the error %v", len(list), err)
		}
		if len(list) > bytes.Count(b, []byte("\n"))+1 {
			t.Errorf("%d queues in %q", len(list), b)
		}
		for _, k := range list {
			if inode, ok := inodeOf(bytes.NewReader(b), k.PortID); ok && !bytes.Contains(b, []byte(inode)) {
				t.Errorf("inode %q out of %q", inode, b)
			}
		}
	})
}

// Whatever the kernel sends is read without a fault, and what is a packet has bytes of its own.
func FuzzMessages(f *testing.F) {
	message := begin(nil, msgPacket, 0, 0, 1723)
	message = append(binary.BigEndian.AppendUint32(attribute(message, attrPacket, 7), 77), 8, 0, 2)
	message = binary.BigEndian.AppendUint32(attribute(message, attrMark, 4), 5)
	message = append(attribute(message, attrPayload, 5), "bytes"...)
	end(message, 0)
	f.Add(message)
	cut := append(attribute(bytes.Clone(message), attrCapLen, 4), 0, 0, 0, 6)
	end(cut, 0)
	f.Add(append(cut, message...))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		for kind, data := range messages(datagram) {
			_ = errorNumber(data)
			p, cut, err := parse(data)
			if err != nil || kind != msgPacket {
				continue
			}
			before := bytes.Clone(p.Data)
			if bytes.Equal(data, message[nlmsgLength:]) && (cut || p.ID != 77 || p.Mark != 5 || string(p.Data) != "bytes") {
				t.Errorf("read as %+v, cut: %v", p, cut)
			}
			clear(data)
			if len(p.Data) > 0 && !bytes.Equal(before, p.Data) {
				t.Error("the packet's bytes are the buffer's")
			}
		}
	})
}
