package examine

import (
	"encoding/binary"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// numbers is a structure of 16-bit numbers at offsets, in the machine's byte order.
func numbers(size int, at map[int]uint16) []byte {
	b := make([]byte, size)
	for i, v := range at {
		binary.NativeEndian.PutUint16(b[i:], v)
	}
	return b
}

// state is the data of -m conntrack --ctstate.
func state(mask, inverse uint16) *xmatch {
	return &xmatch{"conntrack", 3, numbers(164, map[int]uint16{146: 1, 148: inverse, 150: mask})}
}

// ports is the data of -m multiport: b says of each port whether a range begins with it.
func ports(flags, inverse byte, ranges []byte, list ...uint16) *xmatch {
	at := map[int]uint16{}
	for i, p := range list {
		at[2+2*i] = p
	}
	b := numbers(48, at)
	b[0], b[1], b[47] = flags, byte(len(list)), inverse
	copy(b[32:], ranges)
	return &xmatch{"multiport", 1, b}
}

func tcpMatch(sports, dports [2]uint16, mask, set, inverse byte) *xmatch {
	b := numbers(12, map[int]uint16{0: sports[0], 2: sports[1], 4: dports[0], 6: dports[1]})
	b[9], b[10], b[11] = mask, set, inverse
	return &xmatch{"tcp", 0, b}
}

// head is what a rule of the older tables begins with.
func head(protocol uint16, in, out string, inverse byte) *xmatch {
	b := numbers(sizeofHead, map[int]uint16{80: protocol})
	for i, name := range []string{in, out} {
		copy(b[16+16*i:], name)
		for j := range name {
			b[48+16*i+j] = 0xff
		}
		if name != "" {
			b[48+16*i+len(name)] = 0xff // the end counts, too
		}
	}
	b[83] = inverse
	return &xmatch{headMatch, 0, b}
}

func TestXtablesMatches(t *testing.T) {
	any := [2]uint16{0, 0xffff}
	segment := packet{protocol: unix.IPPROTO_TCP, dest: 1723, state: expr.CtStateBitESTABLISHED, flags: 0x18,
		in: device{"lan", 2}, out: device{"wan", 3}}
	gre := packet{protocol: unix.IPPROTO_GRE, state: expr.CtStateBitESTABLISHED}
	for i, c := range []struct {
		m    *xmatch
		p    packet
		want answer
	}{
		{&xmatch{name: "comment"}, gre, yes}, {&xmatch{name: "limit"}, gre, maybe}, {&xmatch{name: "conntrack", revision: 3}, gre, maybe},
		{state(2|4, 0), gre, yes}, {state(8, 0), gre, no}, {state(2|4, 1), gre, no}, {state(8, 1), gre, yes},
		{state(1<<7, 0), gre, maybe}, {state(2, 0), packet{}, maybe},
		{&xmatch{"conntrack", 3, numbers(164, map[int]uint16{146: 1 | 2, 150: 2})}, gre, maybe},
		{&xmatch{"conntrack", 3, numbers(164, map[int]uint16{146: 1 | 1<<13, 150: 2})}, gre, yes}, // written as -m state
		{ports(1, 0, nil, 80, 1723), segment, yes}, {ports(1, 0, nil, 80, 443), segment, no}, {ports(1, 1, nil, 80, 443), segment, yes},
		{ports(1, 0, []byte{1}, 1700, 1800), segment, yes}, {ports(1, 0, []byte{1}, 1724, 1800), segment, no},
		{ports(0, 0, nil, 80), segment, maybe}, {ports(2, 0, nil, 1723), segment, yes}, {ports(1, 0, nil, 80), gre, maybe},
		{tcpMatch(any, [2]uint16{1700, 1800}, 0, 0, 0), segment, yes}, {tcpMatch(any, [2]uint16{1724, 1800}, 0, 0, 0), segment, no},
		{tcpMatch(any, [2]uint16{1724, 1800}, 0, 0, 2), segment, yes}, {tcpMatch([2]uint16{5, 5}, any, 0, 0, 0), segment, maybe},
		{tcpMatch(any, any, 0x17, 0x02, 0), segment, no}, {tcpMatch(any, any, 0x17, 0x02, 4), segment, yes}, {tcpMatch(any, any, 0, 0, 0), gre, no},
		{head(0, "", "", 0), gre, yes}, {head(47, "", "", 0), gre, yes}, {head(6, "", "", 0), gre, no}, {head(6, "", "", 0x40), gre, yes},
		{head(0, "lan", "", 0), segment, yes}, {head(0, "lan", "wan", 0), segment, yes}, {head(0, "lan", "lan", 0), segment, no},
		{head(0, "lan", "wan", 0x02), segment, no}, {head(0, "dmz", "", 0x01), segment, yes}, {head(0, "lan", "", 0), gre, maybe},
	} {
		if got := c.m.matches(c.p); got != c.want {
			t.Errorf("%d: %s is %d, want %d", i, c.m.name, got, c.want)
		}
	}
	if !pptpHelper(append(make([]byte, 12), "pptp\x00-old-bytes-"...)) || pptpHelper(append(make([]byte, 12), "ftp\x00............"...)) || pptpHelper(nil) {
		t.Error("the helper of a target CT is not told")
	}
}

// entry is one of a table of iptables-legacy: matches, and a target with its data.
func entry(flags byte, matches []*xmatch, target string, data []byte) []byte {
	extra := func(name string, data []byte) []byte {
		b := make([]byte, sizeofExtra+(len(data)+7)&^7)
		binary.NativeEndian.PutUint16(b, uint16(len(b)))
		copy(b[2:], name)
		copy(b[sizeofExtra:], data)
		return b
	}
	b := make([]byte, sizeofEntry)
	b[82] = flags
	for _, m := range matches {
		b = append(b, extra(m.name, m.info)...)
	}
	at := len(b)
	b = append(b, extra(target, data)...)
	binary.NativeEndian.PutUint16(b[88:], uint16(at))
	binary.NativeEndian.PutUint16(b[90:], uint16(len(b)))
	return b
}

func standard(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }

// A table with a base chain, whose policy is DROP, and one of the user's.
func TestLegacyTable(t *testing.T) {
	const accept, drop, back = -2, -1, -5
	goes := entry(0, nil, "", standard(0)) // to be filled in
	noTarget := entry(0, nil, "", standard(int32(2*len(goes))))
	policy := entry(0, nil, "", standard(drop))
	name := entry(0, nil, "ERROR", []byte("away"))
	var b []byte
	user := len(goes) + len(noTarget) + len(policy) + len(name)
	goes = entry(0, nil, "", standard(int32(user)))
	for _, e := range [][]byte{goes, noTarget, policy, name,
		entry(0, []*xmatch{{name: "multiport", info: ports(1, 0, nil, 1723).info}}, "REJECT", make([]byte, 4)),
		entry(0, nil, "", standard(back)), entry(0, nil, "ERROR", []byte("ERROR"))} {
		b = append(b, e...)
	}
	r := &ruleset{chains: map[chainName]*chain{}}
	at := len(goes) + len(noTarget)
	if err := r.addLegacy("filter", b, map[int]uint32{0: unix.NF_INET_FORWARD}, map[int]bool{at: true}); err != nil {
		t.Fatal(err)
	}
	forward, away := r.chains[chainName{legacyFamily, "filter", "FORWARD"}], r.chains[chainName{legacyFamily, "filter", "away"}]
	if forward == nil || away == nil || !forward.drop || len(forward.rules) != 2 || len(away.rules) != 2 || !forward.hooked || away.hooked {
		t.Fatalf("%+v, %+v", forward, away)
	}
	w := walk{rules: r, packet: packet{protocol: unix.IPPROTO_TCP, dest: 1723, state: expr.CtStateBitNEW}}
	away.rules[0][1].match.revision = 1 // which the fixture leaves out
	if f := w.hook(unix.NF_INET_FORWARD, "pptp-alg"); f != drops || len(w.chains) != 1 || w.chains[0] != away.chainName {
		t.Errorf("fate %d by %v", f, w.chains)
	}
	if got := r.open(w.chains, 1723); got != "iptables-legacy -I away -p tcp --dport 1723 -j ACCEPT" && uplink() == "" {
		t.Errorf("it says %q", got)
	}
	for cut := 1; cut < len(b); cut++ { // whole entries, or an error; never a crash
		_ = (&ruleset{chains: map[chainName]*chain{}}).addLegacy("filter", b[:cut], map[int]uint32{0: unix.NF_INET_FORWARD}, nil)
	}
}
