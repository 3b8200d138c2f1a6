package conntrack

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Create makes an entry. It fails
//
//   - with an *ExistsError when another entry has one of the tuples;
//   - with an *AlteredError when the kernel would translate differently;
//   - with ErrTableFull, or an *UnsupportedError.
//
// The rule set has to keep packets from making ordinary flows of the same tuples meanwhile.
func (c *Client) Create(e Entry) error {
	if err := c.put(e, false); err != nil {
		return fmt.Errorf("create conntrack entry: %w", err)
	}
	return nil
}

// Replace makes an entry in the place of whatever has its original tuple: an entry of ours, a stale
// flow, or nothing. It is the only way to change an entry, its timeout included. Counters begin
// at 0 again. It fails as Create does, and what was there is gone then.
//
// Both steps are one system call, but packets are not held up between them; only a rule that drops new GRE
// for the tuple keeps a packet from making an ordinary flow in the gap.
func (c *Client) Replace(e Entry) error {
	if err := c.put(e, true); err != nil {
		return fmt.Errorf("replace conntrack entry: %w", err)
	}
	return nil
}

func (c *Client) put(e Entry, replace bool) error {
	err := c.putOnce(e, replace)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// The kernel does not say who is in the way. If nobody is any more, try once again.
	if exists := c.inTheWay(e); exists != nil {
		return exists
	}
	return c.putOnce(e, replace)
}

// putOnce sends delete (if wanted), create and get in one go. The get shows what the kernel made of it, which
// its acknowledgement does not.
func (c *Client) putOnce(e Entry, replace bool) error {
	create, err := encodeEntry(e)
	if err != nil {
		return fmt.Errorf("%v: %w", e, err)
	}
	get, err := encodeGet(ctaTupleOrig, protocolGRE, e.original(), e.Zone)
	if err != nil {
		return err
	}
	var msgs []netlink.Message
	if replace {
		del, err := encodeDelete(protocolGRE, e.original(), e.Zone, nil)
		if err != nil {
			return err
		}
		msgs = append(msgs, request(msgDelete, 0, del))
	}
	msgs = append(msgs,
		request(msgNew, netlink.Create|netlink.Excl, create),
		request(msgGet, 0, get))
	answers, err := c.transact(msgs...)
	if err != nil {
		return err
	}
	if replace {
		if err := answers[0].err; err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete the old one: %w", explain(err))
		}
		answers = answers[1:]
	}
	if err := answers[0].err; err != nil {
		return fmt.Errorf("%v: %w", e, explainCreate(e, err))
	}
	f := answers[1].flow
	if err := answers[1].err; err != nil {
		return fmt.Errorf("%v: read back: %w", e, explain(err))
	}
	if err := e.check(f); err != nil {
		_ = c.remove(f)
		return err
	}
	return nil
}

// explainCreate puts the kernel's answer to encodeEntry's message into words.
func explainCreate(e Entry, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		if e.Zone.ID != 0 && e.nat() == 0 {
			return zoneSupport.because(err)
		}
		return natSupport.because(err)
	}
	return explain(err)
}

// check compares what the kernel has with what it should have.
func (e Entry) check(f Flow) error {
	if f.Original == e.original() && f.Reply == e.reply() && f.Status&StatusOurs == StatusOurs &&
		f.Status&e.nat() == e.nat() && f.Zone.normal() == e.Zone.normal() {
		if f.Mark != e.Mark {
			return markSupport.because(nil)
		}
		return nil
	}
	if f.Original.Dst.Port() == 0 { // we never ask for 0
		return greKeys.because(nil)
	}
	return &AlteredError{Entry: e, Got: f}
}

// inTheWay finds out who has a tuple of e; nil if nobody has.
func (c *Client) inTheWay(e Entry) error {
	f, err := c.get(ctaTupleOrig, protocolGRE, e.original(), e.Zone)
	if err == nil {
		return &ExistsError{Entry: e, Side: Original, Flow: f}
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	f, err = c.get(ctaTupleReply, protocolGRE, e.reply(), e.Zone)
	if err == nil {
		return &ExistsError{Entry: e, Side: Reply, Flow: f}
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// Get returns the entry of ours that has e's original tuple, in e's zone. It may translate to
// something else than e does: compare with [Entry.Equal]. ErrNotFound if there is none of ours.
func (c *Client) Get(e Entry) (Stored, error) {
	s, err := c.getOurs(e)
	if err != nil {
		return Stored{}, fmt.Errorf("get conntrack entry: %v: %w", e, err)
	}
	return s, nil
}

func (c *Client) getOurs(e Entry) (Stored, error) {
	if err := e.validTuple(); err != nil {
		return Stored{}, err
	}
	f, err := c.get(ctaTupleOrig, protocolGRE, e.original(), e.Zone)
	if err != nil {
		return Stored{}, err
	}
	s, ok := f.Stored()
	if !ok || s.Arrives != e.Arrives || s.Zone.normal() != e.Zone.normal() {
		return Stored{}, ErrNotFound
	}
	return s, nil
}

// Delete removes an entry of ours. If what has its original tuple is not ours, or translates
// to something else than e (it belongs to another call then), nothing happens and the answer is ErrNotFound.
func (c *Client) Delete(e Entry) error {
	_, err := c.DeleteCounted(e)
	return err
}

// DeleteCounted is Delete, and returns the entry as it was just before.
func (c *Client) DeleteCounted(e Entry) (Stored, error) {
	s, err := c.getOurs(e)
	if err == nil && s.Leaves != e.Leaves {
		err = ErrNotFound
	}
	if err == nil {
		err = c.deleteID(protocolGRE, e.original(), e.Zone, s.ID)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("delete conntrack entry: %v: %w", e, err)
	}
	return s, nil
}

// DeleteFlow removes a flow, such as one that an ExistsError names, if it is still the same entry.
// ErrNotFound if it is gone.
func (c *Client) DeleteFlow(f Flow) error {
	if err := c.remove(f); err != nil {
		return fmt.Errorf("delete conntrack entry: %v: %w", f, err)
	}
	return nil
}

func (c *Client) remove(f Flow) error {
	return c.deleteID(f.Protocol, f.Original, f.Zone, f.ID)
}

// deleteID removes an entry by original tuple and CTA_ID.
func (c *Client) deleteID(protocol uint8, original Tuple, z Zone, id uint32) error {
	data, err := encodeDelete(protocol, original, z, &id)
	if err != nil {
		return err
	}
	answers, err := c.transact(request(msgDelete, netlink.Acknowledge, data))
	if err != nil {
		return err
	}
	return explain(answers[0].err)
}

// Each calls f for every entry of ours, in no order; for one it may do so twice: see dump. Other flows stay in the
// kernel where it can filter by status; where not they are sent, and left out here.
func (c *Client) Each(f func(Stored)) error {
	err := c.dumpOurs(func(flow Flow) {
		if s, ours := flow.Stored(); ours {
			f(s)
		}
	})
	if err != nil {
		return fmt.Errorf("list conntrack entries: %w", explain(err))
	}
	return nil
}

// List returns all entries of ours, in no order.
func (c *Client) List() ([]Stored, error) {
	var l list
	if err := c.dumpOurs(l.add); err != nil {
		return nil, fmt.Errorf("list conntrack entries: %w", explain(err))
	}
	return l.entries, nil
}

// dumpOurs calls each for the flows that have the status of ours; on old kernels, for all.
func (c *Client) dumpOurs(each func(Flow)) error {
	data, err := encodeDumpStatus(StatusOurs)
	if err != nil {
		return err
	}
	return c.dump(data, each)
}

// list collects what a dump says about entries of ours.
type list struct {
	entries []Stored
	seen    map[listKey]bool
}

// listKey is what no two entries have in common.
type listKey struct {
	arrives GRE
	zone    Zone
}

// add takes a flow of a dump, which may hold others than ours, and the same twice.
func (l *list) add(f Flow) {
	s, ok := f.Stored()
	k := listKey{s.Arrives, s.Zone}
	if !ok || l.seen[k] {
		return
	}
	if l.seen == nil {
		l.seen = make(map[listKey]bool)
	}
	l.seen[k] = true
	l.entries = append(l.entries, s)
}
