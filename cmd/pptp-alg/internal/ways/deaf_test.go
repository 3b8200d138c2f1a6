package ways

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// When the socket of the news breaks, that is news, and nothing is answered from what was known before.
func TestDeaf(t *testing.T) {
	w := &Ways{changes: make(chan struct{}, 1)}
	question := Question{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Link: 1}
	w.forget()
	w.answers[question], w.arrives[1] = answer{way: Way{Link: 2}}, nil
	events, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	w.watch(events, w.when(w.anything), w.lost)
	<-w.changes
	if way, err := w.Find(question); err == nil || !strings.Contains(err.Error(), "not heard of any more") {
		t.Errorf("%v, %v", way, err)
	}
}
