package rules

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// anchorRouter masquerades, and forwards ports to the client: 1723 to 5000, and the other way round.
func anchorRouter(t *testing.T, c Config, more string) *router {
	t.Helper()
	r := newRouter(t, c)
	nft(t, `table ip user {
	ct helper pptp { type "pptp" protocol tcp; }
	chain out { type nat hook postrouting priority srcnat; oifname "outside" masquerade; }
	chain in {
		type nat hook prerouting priority dstnat;
		ip daddr `+public.String()+` tcp dport 1723 dnat to `+client.String()+`:5000
		ip daddr `+public.String()+` tcp dport 5000 dnat to `+client.String()+`:1723
	}
	`+more+`
}`, "-f", "-")
	return r
}

// helped sends the first packet of a connection, and returns the name of the helper that the connection then has. (The
// rule "ct helper" would not tell: it is about the connection that expected this one.)
func (r *router) helped(s segment) string {
	r.Helper()
	from := r.inside
	if s.src.Addr() != client {
		from = r.outer
	}
	if out := r.send(s.packet(), from); out == nil {
		r.Errorf("%v > %v: did not pass", s.src, s.dst)
	} else if got := netip.AddrFrom4([4]byte(out[ipSource:])); from == r.inside && got != public {
		r.Errorf("%v > %v: left from %v, not masqueraded", s.src, s.dst, got)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	must(r, err)
	defer conn.Close()
	const (
		get                   = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
		tupleOrig, tupleProto = 1, 2                              // CTA_TUPLE_ORIG, CTA_TUPLE_PROTO
		protoSrc, protoDst    = 2, 3                              // CTA_PROTO_*_PORT
		help, helpName        = 5, 1                              // CTA_HELP, CTA_HELP_NAME
	)
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: get, Flags: netlink.Request | netlink.Dump}, Data: []byte{unix.AF_INET, 0, 0, 0},
	})
	must(r, err)
	for _, reply := range replies {
		var ports []byte
		var name string
		for kind, v := range attributes(reply) {
			for inner, v := range nested(v) {
				switch {
				case kind == help && inner == helpName:
					name = text(v)
				case kind == tupleOrig && inner == tupleProto:
					for field, v := range nested(v) {
						if field == protoSrc || field == protoDst {
							ports = append(ports, v...)
						}
					}
				}
			}
		}
		if bytes.Equal(ports, s.packet()[20:24]) {
			return name
		}
	}
	r.Errorf("%v > %v: no conntrack entry", s.src, s.dst)
	return ""
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// needsAnchor skips where the kernel has no FTP helper.
func needsAnchor(t *testing.T) {
	t.Helper()
	inNewNamespace(t)
	if err := dial(t).Helper("ftp"); err != nil {
		missing(t, err.Error())
	}
}

// Every new control connection gets the helper, wherever its port is to be seen, and no other connection does. Source
// NAT is as without.
func TestAnchor(t *testing.T) {
	needsAnchor(t)
	for name, anchor := range map[string]string{"with": "ftp", "without": ""} {
		r := anchorRouter(t, Config{Queue: 1723, Ports: []uint16{1723}, Anchor: anchor}, "")
		for what, s := range map[string]segment{
			"dialled":                    {src: at(client, 40000), dst: serverPort, flags: "S"},
			"forwarded to another port":  {src: at(server, 40000), dst: at(public, 1723), flags: "S"},
			"forwarded from another one": {src: at(server, 40001), dst: at(public, 5000), flags: "S"},
			"picked up from the client":  {src: at(client, 40002), dst: serverPort, flags: "A", payload: "x"},
			"picked up from the server":  {src: at(server, 1723), dst: at(client, 40003), flags: "A", payload: "x"},
		} {
			if got := r.helped(s); got != anchor {
				t.Errorf("%s: %s: helper %q, want %q", name, what, got, anchor)
			}
		}
		if got := r.helped(segment{src: at(client, 40000), dst: at(server, 80), flags: "S"}); got != "" {
			t.Errorf("%s: another connection: helper %q", name, got)
		}
		inNewNamespace(t)
	}
}

// The user's rules attach the kernel's own PPTP helper, at the priority at which fw4 and nft's manual have it: the
// anchor is there first, and a connection keeps its helper. Before the anchor, the user's rule wins.
func TestAnchorBeforeKernelHelper(t *testing.T) {
	for priority, want := range map[string]string{"filter": "ftp", "mangle": "pptp"} {
		needsAnchor(t)
		if err := dial(t).Helper("pptp"); err != nil {
			t.Skip(err) // also under CI: that it is missing is no fault of ours
		}
		r := anchorRouter(t, Config{Queue: 1723, Ports: []uint16{1723}, Anchor: "ftp"}, fmt.Sprintf(
			`chain helpers { type filter hook prerouting priority %s; tcp dport 1723 ct helper set "pptp"; }`, priority))
		if got := r.helped(segment{src: clientPort, dst: serverPort, flags: "S"}); got != want {
			t.Errorf("user's rule at priority %s: helper %q, want %q", priority, got, want)
		}
	}
}

// A helper that the kernel does not know is named, and nothing is installed for the question.
func TestHelperIsAskedFor(t *testing.T) {
	needsAnchor(t)
	k := dial(t)
	var lacking *UnsupportedError
	err := k.Helper("no-such-helper")
	if !errors.As(err, &lacking) || !strings.Contains(err.Error(), `"no-such-helper"`) {
		t.Errorf("no-such-helper: %v", err)
	}
	r := installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})
	c := r.Config()
	c.Anchor = "no-such-helper"
	if err := k.Apply(mustNew(t, c)); !errors.As(err, &lacking) || !strings.Contains(err.Error(), `"no-such-helper"`) {
		t.Errorf("Apply: %v", err)
	}
	if out := listing(t); out != "" {
		t.Errorf("left:\n%s", out)
	}
	// The table follows when the anchor changes.
	for _, anchor := range []string{"", "ftp", "sane", ""} {
		if err := k.Helper(anchor); anchor != "" && err != nil {
			t.Log(err)
			continue
		}
		c.Anchor = anchor
		want := mustNew(t, c)
		must(t, k.Apply(want))
		if d, err := k.Diff(want); err != nil || len(d) > 0 {
			t.Errorf("anchor %q: %v, %v", anchor, d, err)
		}
	}
	c.Anchor = "ftp"
	if d, err := k.Diff(mustNew(t, c)); err != nil || !strings.Contains(strings.Join(d, "\n"), "helper anchor is missing") {
		t.Errorf("a missing helper: %q, %v", d, err)
	}
}
