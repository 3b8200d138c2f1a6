package rules

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// watched is a watch and what it says, as it says it.
type watched struct {
	*Watch
	news chan Change
}

func watch(t *testing.T, k *Kernel) watched {
	t.Helper()
	w, err := k.Watch()
	must(t, err)
	w2 := watched{w, make(chan Change, 1000)}
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := w.Receive()
			if err != nil {
				ended <- err
				return
			}
			w2.news <- c
		}
	}()
	t.Cleanup(func() {
		must(t, w.Close())
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
	return w2
}

func (w watched) told(t *testing.T, by, what string) {
	t.Helper()
	select {
	case c := <-w.news:
		if c.Program != by || c.PID == 0 || c.Lost {
			t.Errorf("%s: told of %+v, want a change by %s", what, c, by)
		}
		for { // nft may do it in more than one transaction
			select {
			case <-w.news:
			case <-time.After(100 * time.Millisecond):
				return
			}
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: not told", what)
	}
}

func (w watched) silent(t *testing.T, what string) {
	t.Helper()
	select {
	case c := <-w.news:
		t.Errorf("%s: told of %+v", what, c)
	case <-time.After(200 * time.Millisecond):
	}
}

// Whatever others do to nftables is told, with their name, and what is wrong is found; what the kernel does itself is not.
func TestWatch(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	w := watch(t, k)
	r := installable(t, k, Config{Queue: 1723, Ports: []uint16{1723}})
	guard := []Call{numbered(1), numbered(2)}
	must(t, k.Apply(r, guard...))
	must(t, k.Add(numbered(3)))
	must(t, k.Delete(numbered(3)))
	_, err := k.Present()
	must(t, err)
	w.silent(t, "our own")
	nft(t, "", "list", "ruleset")
	w.silent(t, "reading")
	rule := func() string { // the handle of a rule of ours
		var handle string
		for _, line := range strings.Split(listing(t), "\n") {
			if _, err := fmt.Sscanf(line[max(0, strings.LastIndex(line, "# handle")):], "# handle %s", &handle); err == nil && strings.Contains(line, "towards the server") {
				break
			}
		}
		return handle
	}
	for _, do := range []struct {
		what   string
		args   []string
		broken bool
		lost   int // elements of the guard
	}{
		{"another table", []string{"add", "table", "ip", "other"}, false, 0},
		{"another table's end", []string{"delete", "table", "ip", "other"}, false, 0},
		{"an element of the guard", []string{"delete", "element", "ip", TableName, CallsSet, fmt.Sprintf("{ %s }", numbered(1))}, false, 1},
		{"all elements of the guard", []string{"flush", "set", "ip", TableName, CallsSet}, false, 2},
		{"a rule", []string{"delete", "rule", "ip", TableName, "segments", "handle", "HANDLE"}, true, 0},
		{"a rule more", []string{"add", "rule", "ip", TableName, "gre", "accept"}, true, 0},
		{"a chain's rules", []string{"flush", "chain", "ip", TableName, "prerouting"}, true, 0},
		{"a chain", []string{"delete", "chain", "ip", TableName, "nat"}, true, 0},
		{"a control port", []string{"delete", "element", "ip", TableName, portsSet, "{ 1723 }"}, true, 0},
		{"a policy", []string{"chain", "ip", TableName, "forward", "{ policy drop; }"}, true, 0},
		{"our table, switched off", []string{"add", "table", "ip", TableName, "{ flags dormant; }"}, true, 0},
		{"our table's rules", []string{"flush", "table", "ip", TableName}, true, 0},
		{"our table", []string{"delete", "table", "ip", TableName}, true, 2},
		{"everything", []string{"flush", "ruleset"}, true, 2},
	} {
		for i, a := range do.args {
			if a == "HANDLE" {
				do.args[i] = rule()
			}
		}
		nft(t, "", do.args...)
		w.told(t, "nft", do.what)
		present, err := k.Present()
		must(t, err)
		differences, err := k.Diff(r)
		must(t, err)
		if present == do.broken || (len(differences) > 0) != do.broken {
			t.Errorf("%s: present %v, differences %q", do.what, present, differences)
		}
		missing, err := k.Missing(guard)
		if errors.Is(err, ErrAbsent) {
			missing, err = guard, nil
		}
		must(t, err)
		if len(missing) != do.lost {
			t.Errorf("%s: the guard lacks %v", do.what, missing)
		}
		must(t, k.Apply(r, guard...))
		if present, err := k.Present(); !present || err != nil {
			t.Errorf("%s: not repaired: %v", do.what, err)
		}
		sameCalls(t, k, guard...)
		w.silent(t, "the repair of "+do.what)
	}
	// A thousand transactions are no thousand wake-ups.
	other := dial(t)
	for i := range 1000 {
		must(t, other.Add(numbered(i)))
	}
	told := 0
	for quiet := false; !quiet; {
		select {
		case <-w.news:
			told++
		case <-time.After(300 * time.Millisecond):
			quiet = true
		}
	}
	if told == 0 || told > 1000 {
		t.Errorf("told %d times of 1000 transactions", told)
	}
}

// News that do not fit into the socket are news.
func TestWatchOverflow(t *testing.T) {
	inNewNamespace(t)
	k, other := dial(t), dial(t)
	must(t, k.Apply(installable(t, k, Config{Queue: 1723, Ports: []uint16{1723}})))
	w, err := k.Watch()
	must(t, err)
	t.Cleanup(func() { w.Close() })
	must(t, w.conn.SetReadBuffer(1)) // the kernel's minimum
	for i := range 100 {
		must(t, other.Add(numbered(i)))
	}
	if c, err := w.Receive(); err != nil || !c.Lost {
		t.Errorf("received %+v, %v", c, err)
	}
	must(t, other.Add(numbered(200)))
	if c, err := w.Receive(); err != nil || c.Lost || c.String() == (Change{}).String() {
		t.Errorf("after that: %v, %v", c, err)
	}
}

// What Apply has made from nothing has the elements that were given to it; of what was there already nobody knows.
func TestFresh(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	is := func(want bool, when string) {
		t.Helper()
		if got := k.Fresh(); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	is(false, "before Apply")
	r := installable(t, k, Config{Queue: 1723, Ports: []uint16{1723}})
	must(t, k.Apply(r, numbered(1)))
	is(true, "after the first Apply")
	must(t, k.Apply(r, numbered(2)))
	is(false, "after a second")
	other := dial(t)
	changed := installable(t, other, Config{Queue: 1723, Ports: []uint16{1724}})
	must(t, other.Apply(changed))
	if other.Fresh() {
		t.Error("a table that had to be replaced passes for a new one")
	}
	sameCalls(t, other, numbered(1), numbered(2))
	must(t, other.Remove())
	must(t, k.Apply(r))
	is(true, "after the table was removed")
	sameCalls(t, k)
}

// What happens between Apply and a look is not overlooked: elements of the guard count as well as other tables do.
func TestUntouched(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	is := func(want bool, when string) {
		t.Helper()
		if got, err := k.Untouched(); got != want || err != nil {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	is(false, "before Apply")
	r := installable(t, k, Config{Queue: 1723, Ports: []uint16{1723}})
	must(t, k.Apply(r, numbered(1)))
	is(true, "after Apply")
	must(t, k.Apply(r, numbered(2)))
	is(true, "after an element more")
	must(t, k.Apply(r))
	is(true, "after Apply that had nothing to do")
	nft(t, "", "delete", "element", "ip", TableName, CallsSet, fmt.Sprintf("{ %s }", numbered(1)))
	is(false, "without an element")
	must(t, k.Apply(r))
	nft(t, "", "add", "table", "ip", "other")
	is(false, "with another table")
}
