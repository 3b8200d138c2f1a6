package news

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

func TestString(t *testing.T) {
	at := time.Date(2025, 3, 4, 5, 6, 7, 8e6, time.Local)
	id := func(n uint16) *uint16 { return &n }
	n := status.Known[uint64]
	side := func(real, told string, a, b *uint16) status.Endpoint {
		return status.Endpoint{Address: netip.MustParseAddr(real), TranslatedAddress: netip.MustParseAddr(told), CallID: a, TranslatedCallID: b}
	}
	asked := status.Call{ID: 5, Client: side("192.168.77.12", "203.0.113.1", id(9), id(777)), Server: side("198.51.100.2", "198.51.100.2", nil, nil)}
	up := asked
	up.Server = side("198.51.100.2", "198.51.100.2", id(3), id(3))
	up.Established = at.Add(-63 * time.Minute)
	warned, ended, refused := up, up, asked
	warned.Warning = "no GRE from the server for 30 s"
	ended.Ended, ended.Reason, ended.Diagnosis = at, "cleared by the client", "a firewall"
	ended.PacketsFromClient, ended.BytesFromClient, ended.PacketsFromServer, ended.BytesFromServer = n(1), n(2), n(0), n(0)
	uncounted := ended
	uncounted.PacketsFromClient, uncounted.Diagnosis = nil, ""
	refused.Ended, refused.Reason = at, "refused by this router: limit reached"
	connection := status.Connection{
		Client: status.Peer{Address: netip.MustParseAddrPort("192.168.77.12:4000")},
		Server: status.Peer{Address: netip.MustParseAddrPort("198.51.100.2:1723")},
	}
	strange, closed := connection, connection
	strange.Unparsed, closed.Reason = "magic cookie is 0x47455420", "control connection closed by the client"

	const ends = "call 5 192.168.77.12:9 (seen as 203.0.113.1:777) to 198.51.100.2"
	for _, c := range []struct {
		e    Event
		want string
	}{
		{Event{Kind: CallRequested, Call: &asked}, "call requested       " + ends},
		{Event{Kind: CallEstablished, Call: &up}, "call established     " + ends + ":3"},
		{Event{Kind: CallWarning, Call: &warned}, "call warning         " + ends + ":3; no GRE from the server for 30 s"},
		{Event{Kind: CallEnded, Call: &ended}, "call ended           " + ends + ":3; cleared by the client; a firewall; up for 1h3m0s; out 1 packets, 2 bytes; in 0 packets, 0 bytes"},
		{Event{Kind: CallEnded, Call: &uncounted}, "call ended           " + ends + ":3; cleared by the client; up for 1h3m0s"},
		{Event{Kind: CallRefused, Call: &refused, Lost: 12}, "call refused         " + ends + "; refused by this router: limit reached" +
			" (12 events before this one were lost: they were read too slowly)"},
		{Event{Kind: ConnectionOpened, Connection: &connection}, "connection opened    192.168.77.12:4000 to 198.51.100.2:1723"},
		{Event{Kind: ConnectionUnparsed, Connection: &strange}, "connection unparsed  192.168.77.12:4000 to 198.51.100.2:1723; passed on unchanged: magic cookie is 0x47455420"},
		{Event{Kind: ConnectionClosed, Connection: &closed}, "connection closed    192.168.77.12:4000 to 198.51.100.2:1723; control connection closed by the client"},
		{Event{Kind: TableRestored, Message: "with 4 guarded Call IDs"}, "table restored       with 4 guarded Call IDs"},
		{Event{Kind: Reloaded}, "configuration reloaded"},
	} {
		c.e.Time = at
		got, ok := strings.CutPrefix(c.e.String(), "2025-03-04 05:06:07.008  ")
		if !ok || got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
