package conntrack

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The attributes, by linux/netfilter/nfnetlink_cthelper.h: what an enabled helper or a wrong protocol would
// do to every connection is too much to find out later.
func TestEncodeHelper(t *testing.T) {
	u32 := func(v byte) []byte { return []byte{0, 0, 0, v} }
	name, tuple := nla(1, []byte("pptp-alg\x00")), nla(2|nested, nla(1, []byte{0, 2}), nla(2, []byte{6}))
	got, err := encodeHelper("pptp-alg")
	want := message(name, tuple, nla(3, u32(0)),
		nla(4|nested, nla(1, u32(1)), nla(2|nested, nla(1, []byte("pptp-alg\x00")), nla(2, u32(1)), nla(3, u32(1)))),
		nla(5, u32(0)), nla(6, u32(0)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("register: %v\n%x, want\n%x", err, got, want)
	}
	got, err = encodeHelperRemoval("pptp-alg")
	if want = message(name, tuple); err != nil || !bytes.Equal(got, want) {
		t.Errorf("remove: %v\n%x, want\n%x", err, got, want)
	}
	got, err = encodeHelperQuestion("pptp-alg")
	if want = message(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("look for: %v\n%x, want\n%x", err, got, want)
	}
}

func TestDecodeHelperStatus(t *testing.T) {
	for _, c := range []struct {
		answer []byte
		status uint32
		ok     bool
	}{
		{message(nla(1, []byte("pptp-alg\x00")), nla(6, []byte{0, 0, 0, 1})), 1, true},
		{message(nla(6, []byte{0, 0, 0, 0})), 0, true},
		{message(nla(1, []byte("pptp-alg\x00"))), 0, false},
		{message(nla(6, []byte{0})), 0, false},
		{[]byte{2, 0}, 0, false},
	} {
		if got, err := decodeHelperStatus(c.answer); got != c.status || (err == nil) != c.ok {
			t.Errorf("%x: %d, %v", c.answer, got, err)
		}
	}
}

// userSpaceHelpers skips a test on kernels without them, unless the kernel is said to have everything.
func userSpaceHelpers(t *testing.T, c *Client, name string) {
	t.Helper()
	err := c.ProbeHelper(name)
	if err == nil {
		return
	}
	var lacking *UnsupportedError
	if !errors.As(err, &lacking) || lacking.Feature != userHelpers.Feature || os.Getenv("PPTP_ALG_FULL_KERNEL") != "" {
		t.Fatal(err)
	}
	// Whoever tries nevertheless is told the same.
	if err := c.RegisterHelper(name); !errors.As(err, &lacking) || lacking.Feature != userHelpers.Feature {
		t.Errorf("register where there are none: %v", err)
	}
	if err := c.UnregisterHelper(name); !errors.As(err, &lacking) || lacking.Feature != userHelpers.Feature {
		t.Errorf("unregister where there are none: %v", err)
	}
	t.Skip(err) // also under CI: what a kernel lacks is no fault of ours
}

// The registry is one for the whole machine: the name is this test's own.
func TestRegisterHelper(t *testing.T) {
	const name = "pptp-alg-test"
	_, c := table(t)
	userSpaceHelpers(t, c, name)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool {
		t.Helper()
		status, err := c.helperStatus(name)
		if err != nil && !errors.Is(err, ErrNotFound) || status != helperDisabled {
			t.Fatalf("status %d, %v", status, err)
		}
		return err == nil
	}
	t.Cleanup(func() { must(c.UnregisterHelper(name)) })
	if there() {
		t.Fatal("it is there before")
	}
	must(c.UnregisterHelper(name))
	for range 2 {
		must(c.RegisterHelper(name))
		if !there() {
			t.Fatal("it is not there")
		}
		must(c.ProbeHelper(name))
	}
	must(c.UnregisterHelper(name))
	if there() {
		t.Error("it is still there")
	}

	// One that is enabled would drop packets.
	data, err := encodeHelper(name)
	must(err)
	data[len(data)-1] = 1 // NFCT_HELPER_STATUS_ENABLED
	answers, err := c.transact(request(msgHelperNew, unix.NLM_F_ACK, data))
	if err != nil || answers[0].err != nil {
		t.Fatal(err, answers)
	}
	for what, err := range map[string]error{"register": c.RegisterHelper(name), "probe": c.ProbeHelper(name)} {
		if !errors.Is(err, ErrForeignHelper) {
			t.Errorf("%s where another program's is enabled: %v", what, err)
		}
	}
	must(c.UnregisterHelper(name))
}
