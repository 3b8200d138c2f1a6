package conntrack

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// expected counts what helpers expect in the namespace. A line of the kernel's list that is of an FTP connection names it.
func (n *namespace) expected() (count int) {
	n.t.Helper()
	n.must(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/nf_conntrack_expect")
		count = strings.Count(string(b), "\n")
		return err
	})
	return count
}

// The helper of a connection goes, with what it has expected, and does nothing any more to what it would have read; the
// connection goes on as it was, whatever its translation.
func TestDetach(t *testing.T) {
	const port = "PORT 192,168,77,11,100,1\r\n"
	for i, k := range restorable {
		t.Run(k.name, func(t *testing.T) {
			l, conn, c, s := restoreLab(t, i)
			var lacking *UnsupportedError
			var err error
			l.router.must(func() error { err = l.ct.Reclaim(conn, "ftp"); return nil })
			if errors.As(err, &lacking) {
				missing(t, "no FTP helper: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 { // translated, the helper would write into the text
				say(t, c, s, "a line before it\r\n") // the helper looks at what follows a line that it has seen
				say(t, c, s, port)
				if n := l.router.expected(); n != 1 {
					t.Fatalf("the helper expects %d connections: this proves nothing", n)
				}
			}
			before := flowOf(t, l.ct, conn)
			if before.Helper != "ftp" {
				t.Fatalf("the helper is %q", before.Helper)
			}

			if err := l.ct.Detach(conn); err != nil {
				t.Fatal(err)
			}
			f := flowOf(t, l.ct, conn)
			if f.Helper != "" || f.ID != before.ID || f.Original != before.Original || f.Reply != before.Reply || f.Zone != before.Zone || f.Mark != before.Mark {
				t.Errorf("%+v, want it without a helper as it was: %+v", f, before)
			}
			say(t, c, s, port)
			say(t, s, c, "to the client\r\n")
			if n := l.router.expected(); n != 0 {
				t.Errorf("%d connections are expected still", n)
			}
			// One that has none has nothing to lose.
			if err := l.ct.Detach(conn); err != nil {
				t.Errorf("a connection without a helper: %v", err)
			}
		})
	}
}

// What is not there is not made.
func TestDetachWithoutConnection(t *testing.T) {
	l, conn, c, s := restoreLab(t, 1)
	gone := conn
	gone.Original.Src = addrPort(clientAddr + ":9")
	if err := l.ct.Detach(gone); !errors.Is(err, ErrNotFound) {
		t.Errorf("a connection that is gone: %v", err)
	}
	elsewhere := conn
	elsewhere.Zone = Zone{ID: 3}
	if err := l.ct.Detach(elsewhere); !errors.Is(err, ErrNotFound) {
		t.Errorf("a connection of another zone: %v", err)
	}
	for _, g := range []Connection{gone, elsewhere} {
		if there, err := l.ct.HasConnection(g); there || err != nil {
			t.Errorf("Detach has made %v: %v", g.Original, err)
		}
	}
	if err := l.ct.Detach(Connection{}); !errors.Is(err, errTuple) {
		t.Errorf("no connection: %v", err)
	}
	say(t, c, s, "to the server")
}
