package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// numbered is a guard element of many.
func numbered(i int) Call {
	return Call{
		Src:    netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
		Dst:    netip.AddrFrom4([4]byte{203, 0, 113, 1}),
		CallID: uint16(i),
	}
}

// sameCalls checks what is in the guard.
func sameCalls(t testing.TB, k *Kernel, want ...Call) {
	t.Helper()
	got, err := k.Calls()
	must(t, err)
	missing := map[Call]bool{}
	for _, c := range want {
		missing[c] = true
	}
	var extra []Call
	for _, c := range got {
		if !missing[c] {
			extra = append(extra, c) // or twice
		}
		delete(missing, c)
	}
	if len(missing) > 0 || len(extra) > 0 {
		t.Errorf("guard has %d elements, %v and others too many, and lacks %d", len(got), extra[:min(len(extra), 5)], len(missing))
	}
}

// The table as nft makes it from the text is the table as Apply makes it over netlink: to our own comparison, which sees
// every attribute, and to nft's listing in both forms.
func TestTextAndNetlinkAgree(t *testing.T) {
	for name, c := range variants {
		t.Run(name, func(t *testing.T) {
			inNewNamespace(t)
			k := dial(t)
			r := mustNew(t, c)
			queueRules := []string{ruleName("control", 3), ruleName("known", 0)}
			if c.Rate > 0 {
				queueRules = []string{ruleName("control", 4), ruleName("known", 1)}
			}
			foreign := !c.Native
			text := r.String()
			if err := k.Check(r); err != nil {
				if lacking := (*UnsupportedError)(nil); !errors.As(err, &lacking) {
					t.Fatal(err)
				}
				if !c.Native {
					missing(t, err.Error())
				}
				// nft must object to the rules that this kernel lacks something for, and to nothing else.
				out, err := nftTry(t, text, "-c", "-f", "-")
				if err == nil || strings.Count(out, "Error:") != len(queueRules) || !strings.Contains(out, "queue flags bypass") {
					t.Fatalf("nft -c: %v\n%s", err, out)
				}
				// Without it, the text says the same as the ruleset with the target.
				foreign = true
				c.Native = false
				r = mustNew(t, c)
				lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.Contains(l, "queue flags bypass") })
				text = strings.Join(lines, "\n")
			}
			nft(t, text, "-c", "-f", "-")
			nft(t, text, "-f", "-")

			differences, err := k.Diff(r)
			must(t, err)
			var want []string
			if foreign {
				for _, r := range queueRules {
					want = append(want, r+" is missing")
				}
				slices.Sort(want)
			}
			if !slices.Equal(differences, want) {
				t.Errorf("table made from the text: %q, want %q", differences, want)
			}
			fromText, fromTextJSON := listing(t), listingJSON(t)

			must(t, k.Remove())
			must(t, k.Apply(r))
			overNetlink, overNetlinkJSON := listing(t), listingJSON(t)
			if got, want := withoutHandles(overNetlink, foreign), withoutHandles(fromText, foreign); got != want {
				t.Errorf("over netlink:\n%s\nfrom text:\n%s", got, want)
			}
			if !reflect.DeepEqual(overNetlinkJSON, fromTextJSON) {
				t.Errorf("as JSON, over netlink:\n%v\nfrom text:\n%v", overNetlinkJSON, fromTextJSON)
			}
		})
	}
}

// queues tells whether a line of a listing is one of the rules with a queue, by their comments.
func queues(line string) bool {
	return strings.Contains(line, "translated by pptp-alg") || strings.Contains(line, "pptp-alg puts it back")
}

// withoutHandles is a listing without what differs by nature, and without the rule that text cannot express.
func withoutHandles(listing string, withoutQueue bool) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		if withoutQueue && queues(line) {
			continue
		}
		line, _, _ = strings.Cut(line, " # handle")
		b.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

func listingJSON(t *testing.T) []any {
	var all struct{ Nftables []any }
	must(t, json.Unmarshal([]byte(nft(t, "", "-j", "list", "ruleset")), &all))
	var kept []any
	for _, object := range all.Nftables {
		for _, v := range object.(map[string]any) {
			delete(v.(map[string]any), "handle")
		}
		if !queues(fmt.Sprint(object)) {
			kept = append(kept, object)
		}
	}
	return kept
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	for name, c := range variants {
		t.Run(name, func(t *testing.T) {
			inNewNamespace(t)
			k := dial(t)
			r := installable(t, k, c)
			must(t, k.Apply(r))
			must(t, k.Add(numbered(1), numbered(2)))
			before := listing(t)
			generation, err := k.generation()
			must(t, err)

			must(t, k.Apply(r))
			other := dial(t) // as a daemon that starts again
			must(t, other.Apply(r))
			if after := listing(t); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if g, err := k.generation(); err != nil || g != generation {
				t.Errorf("there was a transaction: generation %d, then %d, %v", generation, g, err)
			}
			sameCalls(t, k, numbered(1), numbered(2))

			must(t, other.Apply(r, numbered(2), numbered(3)))
			sameCalls(t, k, numbered(1), numbered(2), numbered(3))
			if after := withoutCalls(listing(t)); after != withoutCalls(before) {
				t.Errorf("more elements changed the table itself:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// withoutCalls is a listing without the guard's elements, the only ones with an address in front.
func withoutCalls(listing string) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, " . 203.0.113.1 . ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Whatever somebody does to the table is seen and mended, and neither elements nor counts are lost by it.
func TestApplyMends(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	r := installable(t, k, Config{Queue: 1723, Ports: []uint16{1723}, Guard: GuardAll})
	edits := []struct{ what, input string }{
		{"rule inserted", "insert rule ip pptp-alg gre accept"},
		{"rule appended", "add rule ip pptp-alg nat accept"},
		{"chain flushed", "flush chain ip pptp-alg gre"},
		{"chain added", "add chain ip pptp-alg mine"},
		{"policy", "add chain ip pptp-alg forward { policy drop; }"},
		{"port added", "add element ip pptp-alg ports { 99 }"},
		{"port deleted", "delete element ip pptp-alg ports { 1723 }"},
		{"ports flushed", "flush set ip pptp-alg ports"},
		{"set added", "add set ip pptp-alg mine { type ipv4_addr; }"},
		{"counter added", "add counter ip pptp-alg mine"},
		{"other object added", "add quota ip pptp-alg mine { over 1 mbytes; }"},
		{"switched off", "add table ip pptp-alg { flags dormant; }"},
	}
	for _, edit := range edits {
		step(t, edit.what, func() {
			must(t, k.Apply(r))
			must(t, k.Add(numbered(1), numbered(65536+1)))
			nft(t, edit.input, "-f", "-")
			mends(t, k, r)
			sameCalls(t, k, numbered(1), numbered(65536+1))
		})
	}
	// A rule in whose place stands another, comment and all.
	for _, swap := range []struct{ what, chain, old, new string }{
		{"lookup inverted", "gre", "@calls", "!= @calls"},
		{"verdict", "gre", "drop", "accept"},
		{"comparison", "gre", "0x1880b", "0x1880c"},
		{"mask", "gre", "0x7ffff", "0xfffff"},
		{"expression more", "gre", "counter name \"guarded\"", "counter counter name \"guarded\""},
		{"counter", "gre", "counter name \"unmapped\"", "counter name \"guarded\""},
		{"comment", "gre", "no call of ours", "mine"},
		{"direction", "segments", "ct original", "ct reply"},
	} {
		step(t, "replaced: "+swap.what, func() {
			must(t, k.Apply(r))
			replaceRule(t, swap.chain, swap.old, swap.new)
			mends(t, k, r)
		})
	}
	for what, input := range map[string]string{"table deleted": "delete table ip pptp-alg", "ruleset flushed": "flush ruleset"} {
		step(t, what, func() {
			must(t, k.Apply(r, numbered(1)))
			nft(t, input, "-f", "-")
			if err := k.Add(numbered(2)); !errors.Is(err, ErrAbsent) {
				t.Errorf("Add without a table: %v, want ErrAbsent", err)
			}
			if _, err := k.Calls(); !errors.Is(err, ErrAbsent) {
				t.Errorf("Calls without a table: %v, want ErrAbsent", err)
			}
			if _, err := k.Counters(); !errors.Is(err, ErrAbsent) {
				t.Errorf("Counters without a table: %v, want ErrAbsent", err)
			}
			must(t, k.Delete(numbered(2)))
			if present, err := k.Present(); present || err != nil {
				t.Errorf("Present: %v, %v", present, err)
			}
			must(t, k.Apply(r, numbered(3)))
			sameCalls(t, k, numbered(3))
		})
	}
}

// replaceRule replaces the rule of a chain that contains old by itself with old changed to new.
func replaceRule(t *testing.T, chain, old, new string) {
	t.Helper()
	for line := range strings.Lines(nft(t, "", "-a", "list", "chain", "ip", TableName, chain)) {
		rule, handle, found := strings.Cut(strings.TrimSpace(line), " # handle ")
		if !found || !strings.Contains(rule, old) || strings.HasPrefix(rule, "chain") {
			continue
		}
		nft(t, fmt.Sprintf("replace rule ip %s %s handle %s %s", TableName, chain, handle, strings.Replace(rule, old, new, 1)), "-f", "-")
		return
	}
	t.Fatalf("no rule with %q in chain %s", old, chain)
}

// mends checks that a table which is not as it should be is noticed and put right.
func mends(t *testing.T, k *Kernel, r Ruleset) {
	t.Helper()
	if present, err := k.Present(); present || err != nil {
		t.Errorf("Present: %v, %v; want false", present, err)
	}
	if d, err := k.Diff(r); len(d) == 0 || err != nil {
		t.Errorf("Diff: %q, %v; want something", d, err)
	}
	must(t, k.Apply(r))
	if d, err := k.Diff(r); len(d) > 0 || err != nil {
		t.Errorf("Diff after Apply: %q, %v", d, err)
	}
	if present, err := k.Present(); !present || err != nil {
		t.Errorf("Present after Apply: %v, %v", present, err)
	}
}

func TestReplaceKeepsCountersAndElements(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	var all []Call
	for i := range 40000 {
		all = append(all, numbered(i))
	}
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}, Rate: 100})))
	must(t, k.Add(all...))
	// A table whose counters have counted.
	count := func(v Counter) []message {
		return []message{newCounter(counter{"extra", ""}, v)}
	}
	must(t, k.commit("test", count(Counter{7, 700})))
	must(t, k.Apply(installable(t, k, Config{Queue: 2, Ports: []uint16{1723}, Rate: 100})))
	if c, err := k.Counters(); err != nil || len(c) != 7 {
		t.Fatalf("counters %v, %v: the extra one must be gone", c, err)
	}
	sameCalls(t, k, all...)
	nft(t, "", "list", "ruleset") // must still be able to print it

	must(t, k.commit("test", []message{deleteTable(), newTable(table{}), newCounter(counter{Unmapped, ""}, Counter{7, 700})}))
	must(t, k.Apply(installable(t, k, Config{Queue: 2, Ports: []uint16{1723}, Rate: 100})))
	c, err := k.Counters()
	must(t, err)
	if c[Unmapped] != (Counter{7, 700}) || c[Guarded] != (Counter{}) {
		t.Errorf("counters after a replacement: %v", c)
	}
}

// A set called calls of another layout cannot be kept, and must not be in the way.
func TestReplaceForeignLayout(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	nft(t, "table ip pptp-alg { set calls { type ipv4_addr; elements = { 1.2.3.4 }; }; }", "-f", "-")
	if _, err := k.Calls(); err == nil {
		t.Error("elements of another layout were taken for calls")
	}
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}}), numbered(5)))
	sameCalls(t, k, numbered(5))
}

func TestRemoveTakesOurTableOnly(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	nft(t, "table ip pptp-algo { chain c { }; }\ntable inet pptp-alg { chain c { }; }\ntable ip nat { chain c { }; }", "-f", "-")
	before := listing(t)
	must(t, k.Remove())
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})))
	if present, err := k.Present(); !present || err != nil {
		t.Errorf("Present: %v, %v", present, err)
	}
	must(t, k.Remove())
	must(t, k.Remove())
	if after := listing(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if present, err := k.Present(); present || err != nil {
		t.Errorf("Present after Remove: %v, %v", present, err)
	}
}

func TestAddAndDelete(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})))
	must(t, k.Add())
	must(t, k.Delete())
	must(t, k.Delete(numbered(1)))
	must(t, k.Add(numbered(1), numbered(1)))
	must(t, k.Add(numbered(1), numbered(2)))
	sameCalls(t, k, numbered(1), numbered(2))
	zero := numbered(3)
	zero.CallID = 0
	mapped := Call{netip.MustParseAddr("::ffff:192.0.2.9"), netip.MustParseAddr("192.0.2.1"), 65535}
	must(t, k.Add(zero, mapped))
	mapped.Src = mapped.Src.Unmap()
	sameCalls(t, k, numbered(1), numbered(2), zero, mapped)
	must(t, k.Delete(numbered(7), numbered(1), numbered(1), numbered(8)))
	sameCalls(t, k, numbered(2), zero, mapped)
	for _, bad := range []Call{{}, {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), 1}} {
		if err := k.Add(bad); err == nil || !strings.Contains(err.Error(), "IPv4") {
			t.Errorf("Add(%v): %v", bad, err)
		}
		if err := k.Delete(bad); err == nil {
			t.Errorf("Delete(%v) succeeded", bad)
		}
	}

	const n = 3*batchSize + 1
	var many []Call
	for i := range n {
		many = append(many, numbered(i+1000))
	}
	// Several times, and listed at once: while the kernel is still rearranging the set, which makes its lists wrong.
	for range 4 {
		must(t, k.Add(many...))
		sameCalls(t, k, append(many, numbered(2), zero, mapped)...)
		must(t, k.Delete(append(many, numbered(n+2000))...))
		sameCalls(t, k, numbered(2), zero, mapped)
	}
	if out := nft(t, "", "list", "set", "ip", TableName, CallsSet); !strings.Contains(out, "192.0.2.9 . 192.0.2.1 . 0xffff") ||
		!strings.Contains(out, "typeof ip saddr . ip daddr . @th,48,16") {
		t.Errorf("nft lists the guard as\n%s", out)
	}
}

// Asking leaves no trace, whether there is a table or not.
func TestFeaturesAndCheckInstallNothing(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	look := func(state string) {
		t.Helper()
		before := listing(t)
		generation, err := k.generation()
		must(t, err)
		f, err := k.Features()
		must(t, err)
		if !f.Queue && !f.Target {
			t.Errorf("%s: no way to a queue and no error", state)
		}
		must(t, k.Check(mustNew(t, Config{Queue: 3, Ports: []uint16{5}, Native: f.Queue})))
		if after := listing(t); after != before {
			t.Errorf("%s: before:\n%s\nafter:\n%s", state, before, after)
		}
		if g, err := k.generation(); err != nil || g != generation {
			t.Errorf("%s: generation %d, then %d, %v", state, generation, g, err)
		}
	}
	look("empty")
	must(t, k.Apply(installable(t, k, Config{Queue: 1, Ports: []uint16{1723}}), numbered(1)))
	look("installed")
}

// What the kernel lacks is named, also when it is the only thing among several that a rule needs.
func TestUnsupportedIsNamed(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	r := mustNew(t, Config{Queue: 1, Ports: []uint16{1723}})
	for _, c := range r.table.chains {
		for i, rule := range c.rules {
			if !queues(rule.comment) {
				continue
			}
			// The name of an expression that no kernel has.
			queue := &c.rules[i].clauses[len(rule.clauses)-1]
			queue.exprs = []expression{expression(strings.Replace(string(queue.exprs[0]), "target", "tarmac", 1))}
		}
	}
	for what, err := range map[string]error{"Check": k.Check(r), "Apply": k.Apply(r)} {
		var lacking *UnsupportedError
		if !errors.As(err, &lacking) || lacking != needQueue {
			t.Errorf("%s: %v, want what queues need", what, err)
			continue
		}
		for _, part := range []string{"chain control rule 4", "CONFIG_NFT_QUEUE", "kmod-nft-queue", "kmod-nfnetlink-queue", "modprobe"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v: does not say %s", what, err, part)
			}
		}
	}
	if present, err := k.Present(); present || err != nil {
		t.Errorf("a refused ruleset left something: %v, %v", present, err)
	}
}

func TestWithoutCapability(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	r := mustNew(t, Config{Queue: 1, Ports: []uint16{1723}})
	// Only this thread loses it, and this thread ends with the test.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capset(&header, &data[0]))
	_, features := k.Features()
	_, present := k.Present()
	_, counters := k.Counters()
	for what, err := range map[string]error{
		"Apply": k.Apply(r), "Remove": k.Remove(), "Add": k.Add(numbered(1)), "Delete": k.Delete(numbered(1)),
		"Check": k.Check(r), "Features": features, "Present": present, "Counters": counters,
	} {
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestInNamespace(t *testing.T) {
	inNewNamespace(t)
	here, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer here.Close()
	k := dial(t)
	r := installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})

	elsewhere := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		elsewhere <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			k, err := Dial(InNamespace(int(here.Fd())))
			if err != nil {
				return err
			}
			defer k.Close()
			return k.Apply(r)
		}()
	}()
	must(t, <-elsewhere)
	if d, err := k.Diff(r); len(d) > 0 || err != nil {
		t.Errorf("not applied here: %q, %v", d, err)
	}
}

// Others change nftables all the time while the table is read: no generation lasts for the whole of the reading.
func TestReadWhileOthersWrite(t *testing.T) {
	inNewNamespace(t)
	k := dial(t)
	r := installable(t, k, Config{Queue: 1, Ports: []uint16{1723}})
	must(t, k.Apply(r))
	const writers = 3
	stop, stopped := make(chan struct{}), make(chan error, writers)
	for range writers {
		other := dial(t)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := errors.Join(other.Add(numbered(i)), other.Delete(numbered(i))); err != nil {
					stopped <- err
					return
				}
			}
		}()
	}
	for range 20 {
		if c, err := k.Counters(); err != nil || len(c) != 6 {
			t.Errorf("Counters: %v, %v", c, err)
		}
		if d, err := k.Diff(r); err != nil || len(d) != 0 {
			t.Errorf("Diff: %q, %v", d, err)
		}
		if _, err := k.Calls(); err != nil {
			t.Error(err)
		}
		if ok, err := k.Present(); !ok || err != nil {
			t.Errorf("Present: %v, %v", ok, err)
		}
		must(t, k.Apply(r))
	}
	close(stop)
	for range writers {
		must(t, <-stopped)
	}
}
