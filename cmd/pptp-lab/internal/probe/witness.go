package probe

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"pptp-alg/e2e/peer"
	"pptp-alg/e2e/wire"
)

// witness hears what does not belong to the call: routers that complain about
// our packets, and GRE of others.
type witness struct {
	server netip.Addr
	conn   net.PacketConn
	done   chan struct{}

	mu         sync.Mutex
	complaints []string
	strays     []string
	forbidden  []string // complaints about our TCP, by firewalls
}

// ICMP (RFC 792), and where the quoted datagram begins in a message.
const (
	icmpUnreachable = 3
	icmpQuoted      = 8
	icmpLeast       = icmpQuoted + 20

	protocolTCP = 6
)

// codes are those of "destination unreachable" (RFC 792, RFC 1812 section
// 5.2.7.1).
var codes = map[byte]string{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
	4: "fragmentation needed", 9: "network prohibited", 10: "host prohibited", 13: "administratively prohibited"}

// listen begins to hear ICMP at an address. A machine that does not allow it
// is none the worse: only a hint is missing.
func listen(network peer.Network, at, server netip.Addr) *witness {
	w := &witness{server: server, done: make(chan struct{})}
	open := func() (err error) {
		w.conn, err = net.ListenPacket("ip4:icmp", at.String())
		return err
	}
	var err error
	if network == nil {
		err = open()
	} else {
		err = network.Do(open)
	}
	if err != nil {
		close(w.done)
		return w
	}
	go w.hear()
	return w
}

func (w *witness) hear() {
	defer close(w.done)
	b := make([]byte, 2000)
	for {
		n, from, err := w.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n < icmpLeast || b[0] != icmpUnreachable {
			continue
		}
		quoted := b[icmpQuoted:n]
		if netip.AddrFrom4([4]byte(quoted[16:])) != w.server {
			continue
		}
		what := codes[b[1]]
		if what == "" {
			what = fmt.Sprintf("unreachable, code %d", b[1])
		}
		text := fmt.Sprintf("%v says: %s", from, what)
		switch {
		case quoted[9] == wire.ProtocolGRE:
			w.add(&w.complaints, text)
		case quoted[9] == protocolTCP && (b[1] == 9 || b[1] == 10 || b[1] == 13):
			w.add(&w.forbidden, text)
		}
	}
}

// few is how many different ones of a kind are worth telling.
const few = 5

func (w *witness) add(to *[]string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, known := range *to {
		if known == text {
			return
		}
	}
	if len(*to) < few {
		*to = append(*to, text)
	}
}

// stray takes GRE for no call of ours. From the server it may be for another
// client, whose packets should not come here; from elsewhere it may be the
// server's under another address.
func (w *witness) stray(from netip.Addr, g wire.GRE) {
	w.add(&w.strays, fmt.Sprintf("GRE from %v with Call ID %d", from, g.CallID))
}

func (w *witness) heard() (complaints, strays []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.complaints, w.strays
}

// prohibited returns what a firewall said about our TCP, which is for the
// connecting program no more than an unreachable host. It comes at the same time
// by another way, hence the wait.
func (w *witness) prohibited() string {
	for range 10 {
		w.mu.Lock()
		said := strings.Join(w.forbidden, ", ")
		w.mu.Unlock()
		if said != "" || w.conn == nil {
			return said
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ""
}

func (w *witness) close() {
	if w.conn != nil {
		_ = w.conn.Close()
	}
	<-w.done
}
