package conntrack

import (
	"errors"
	"testing"
)

// The connection goes on through an entry that has the helper, whatever its translation. That such an entry stays out of
// flow tables, and that one in them is found, needs a kernel that has them: the scenarios show it.
func TestReclaim(t *testing.T) {
	for i, k := range restorable {
		t.Run(k.name, func(t *testing.T) {
			l, conn, c, s := restoreLab(t, i)
			if conn.Helper != "" {
				t.Fatalf("the connection has the helper %q", conn.Helper)
			}
			var err error
			l.router.must(func() error { err = l.ct.Reclaim(conn, "ftp"); return nil })
			var lacking *UnsupportedError
			if errors.As(err, &lacking) {
				missing(t, "no FTP helper: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			f := flowOf(t, l.ct, conn)
			if f.Helper != "ftp" || f.Original != conn.Original || f.Reply != conn.Reply {
				t.Errorf("%v with the helper %q, want %v", f, f.Helper, conn)
			}
			say(t, c, s, "to the server")
			say(t, s, c, "to the client")
			if found, err := l.ct.Offloaded(); err != nil || len(found) != 0 {
				t.Errorf("offloaded: %v, %v", found, err)
			}
		})
	}
}

// A helper that the kernel does not know costs the connection nothing.
func TestReclaimWithoutHelper(t *testing.T) {
	l, conn, c, s := restoreLab(t, 1)
	var lacking *UnsupportedError
	if err := l.ct.Reclaim(conn, "no-such-helper"); !errors.As(err, &lacking) {
		t.Errorf("unknown helper: %v", err)
	}
	if f := flowOf(t, l.ct, conn); f.Helper != "" {
		t.Errorf("helper %q", f.Helper)
	}
	say(t, s, c, "to the client")
	say(t, c, s, "to the server")
	conn.Original.Src = addrPort(clientAddr + ":9")
	if err := l.ct.Reclaim(conn, "ftp"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a connection that is gone: %v", err)
	}
}
