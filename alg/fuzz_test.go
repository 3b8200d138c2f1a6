package alg_test

import (
	"testing"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// naiveMask says which bytes of a stream the router may change, and whether
// the stream stops being PPTP.
func naiveMask(b []byte) (mask []bool, broken bool) {
	mask = make([]bool, len(b))
	allow := func(at, n int) {
		for i := at; i < at+n && i < len(b); i++ {
			mask[i] = true
		}
	}
	extra := 0
	for at := 0; len(b)-at >= 12; {
		n, kind, typ := id(b, at), id(b, at+2), id(b, at+8)
		known := kind == 1 && typ > 0 && typ < len(lengths)
		if be.Uint32(b[at+4:]) != 0x1a2b3c4d || n < 12 || known && n < lengths[typ] {
			if extra == 0 {
				return mask, true
			}
			at, extra = at+extra, 0
			continue
		}
		extra = 0
		if known {
			switch typ {
			case ocrq, icrq, clearRequest, disconnectNotify, iccn, wanError, setLinkInfo:
				allow(at+12, 2)
			case ocrp, icrp:
				allow(at+12, 4)
				if at+16 < len(b) && b[at+16] == 1 {
					allow(at+16, 2)
				}
			}
			if typ == icrp && n == 148 {
				n, extra = 24, 124
			}
		}
		at += n
	}
	return mask, false
}

// FuzzStream: arbitrary bytes from both sides, arbitrarily cut.
func FuzzStream(f *testing.F) {
	var c, s []byte
	for _, typ := range []int{sccrq, ocrq, setLinkInfo, icrp, clearRequest, stopRequest} {
		c = append(c, message(typ, 5, 5)...)
	}
	for _, typ := range []int{sccrp, ocrp, wanError, icrq, iccn, disconnectNotify, echoReply} {
		s = append(s, message(typ, 5, 5)...)
	}
	f.Add(c, s, []byte{100, 13, 1, 200}, false)
	f.Add(c[156:], s[156:], []byte{13, 14, 1, 1, 2}, true)
	f.Add(with(message(icrp, 5, 5), 0, 148), append(message(icrq, 5, -1), c...), []byte{}, false)
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), make([]byte, 30), []byte{3}, false)
	f.Fuzz(func(t *testing.T, fromClient, fromServer, cuts []byte, narrow bool) {
		if len(fromClient) > 8000 || len(fromServer) > 8000 {
			return
		}
		cfg := talkRange
		if narrow {
			cfg = talkRange2
			cfg.Last = cfg.First + 20
		}
		cfg.Limits = nat.Limits{CallsPerConnection: 6}
		for _, whole := range []bool{true, false} {
			r := newRig(t, cfg)
			c := r.connect(2)
			cut := 0
			next := func() int {
				if whole || len(cuts) == 0 {
					return 1 << 20
				}
				cut++
				return int(cuts[cut%len(cuts)])%200 + 1
			}
			streams := [2][]byte{fromClient, fromServer}
			var all [2][]*sent
			for at := [2]int{}; at[0] < len(streams[0]) || at[1] < len(streams[1]); {
				for side := client; side <= server; side++ {
					n := min(next(), len(streams[side])-at[side])
					if n > 0 {
						all[side] = append(all[side], c.at(side, at[side], streams[side][at[side]:at[side]+n], alg.ACK))
						at[side] += n
					}
				}
			}
			// Halves of Call IDs at the very end wait for a second at most.
			r.wait(5 * time.Second)
			var out [2][]byte
			broken := false
			for side, b := range streams {
				for _, s := range all[side] {
					s.went(t)
					out[side] = append(out[side], s.Payload...)
				}
				mask, bad := naiveMask(b)
				broken = broken || bad
				for i := range b {
					if out[side][i] != b[i] && !mask[i] {
						t.Errorf("byte %d of the %v changed from %#02x to %#02x", i, nat.Side(side), b[i], out[side][i])
					}
				}
				if len(out[side]) != len(b) {
					t.Errorf("%d bytes became %d", len(b), len(out[side]))
				}
			}
			if broken != (c.Unparsed != "") {
				t.Errorf("whole %v: broken %v, unparsed %q", whole, broken, c.Unparsed)
			}
			for side, b := range streams {
				for at := 0; at < len(b); {
					n := min(next(), len(b)-at)
					s := c.at(nat.Side(side), at, b[at:at+n], alg.ACK)
					s.went(t)
					same(t, "again", s.Payload, out[side][at:at+n])
					at += n
				}
			}
			r.empty()
		}
	})
}
