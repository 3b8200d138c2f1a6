package ppp

import (
	"bytes"
	"testing"
)

// The corpus: one frame of each kind that a negotiation sends.
func addFrames(f *testing.F) {
	c, s := configs(MSCHAPv2, AnyEncryption())
	p := newPair(f, 1, wire{order: true}, c, s)
	seen := map[string]bool{}
	p.tap = func(_ int, frame []byte) []byte {
		if kind := string(frame[:min(len(frame), 5)]); !seen[kind] {
			seen[kind] = true
			f.Add(frame)
		}
		return frame
	}
	p.start()
	p.up()
	p.send(client, datagram(0))
	p.settle()
}

// No frame, in whatever phase, makes an end panic, talk without end, or hand
// out what it should not.
func FuzzReceive(f *testing.F) {
	addFrames(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		for stage := range 60 {
			c, s := configs(MSCHAPv2, AnyEncryption())
			p := newPair(t, 1, wire{order: true}, c, s)
			p.start()
			for range stage {
				if len(p.air) == 0 {
					return
				}
				p.step()
			}
			for i := range p.ends {
				before := len(p.got[i])
				p.ends[i].Receive(p.now, frame)
				out := p.ends[i].Take()
				if len(out.Frames) > 4 {
					t.Errorf("stage %d: %d frames in answer to one", stage, len(out.Frames))
				}
				if len(out.Datagrams)+before > 1 {
					t.Errorf("stage %d: datagrams out of one frame", stage)
				}
			}
		}
	})
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{1, 2, 0, 8, 5, 6, 1, 2})
	f.Add([]byte{1, 2, 0, 10, 5, 6, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePacket(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, p.bytes()) {
			t.Errorf("%x came back as %x", b, p.bytes())
		}
		options, err := parseOptions(p.data)
		if err == nil && !bytes.Equal(joinOptions(options), p.data) {
			t.Errorf("options %x came back as %x", p.data, joinOptions(options))
		}
	})
}
