package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Call is one direction of a call as its packets arrive at the router, before any translation: an element of the
// guard.
type Call struct {
	Src, Dst netip.Addr
	CallID   uint16
}

// String is the element in nft's words.
func (c Call) String() string { return fmt.Sprintf("%s . %s . %#x", c.Src, c.Dst, c.CallID) }

// callKeyLength is the length of an element: each field of a concatenation is padded to four bytes.
const callKeyLength = 4 + 4 + 4

// batchSize is how many elements go in one transaction. A transaction is one message, and the kernel must find that much
// memory in one piece.
const batchSize = 16384

func (c Call) key() ([]byte, error) {
	src, dst := c.Src.Unmap(), c.Dst.Unmap()
	if !src.Is4() || !dst.Is4() {
		return nil, fmt.Errorf("guard element %s: not IPv4 addresses", c)
	}
	key := make([]byte, 0, callKeyLength)
	key = append(key, src.AsSlice()...)
	key = append(key, dst.AsSlice()...)
	key = binary.BigEndian.AppendUint16(key, c.CallID)
	return append(key, 0, 0), nil
}

// keyed is an element of a set whose elements come and go.
type keyed interface {
	comparable
	key() ([]byte, error)
}

func keysOf[E keyed](elements []E) ([][]byte, error) {
	keys := make([][]byte, 0, len(elements))
	for _, e := range elements {
		key, err := e.key()
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// Add puts tuples under guard: from now on no packet with one of them makes conntrack begin a flow of its own. Those that
// are there already stay. ErrAbsent: there is no table.
func (k *Kernel) Add(calls ...Call) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return addTo(k, "add to guard", CallsSet, calls)
}

// Delete takes tuples from the guard. Those that are not there, or a table that is not there, are no error: the end is
// the same.
func (k *Kernel) Delete(calls ...Call) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return deleteFrom(k, "delete from guard", CallsSet, calls)
}

func addTo[E keyed](k *Kernel, doing, set string, added []E) error {
	keys, err := keysOf(added)
	if err != nil {
		return fmt.Errorf("rules: %s: %w", doing, err)
	}
	for part := range slices.Chunk(keys, batchSize) {
		failures, err := k.transact(elements(unix.NFT_MSG_NEWSETELEM, create, set, part), true)
		if err != nil {
			return explain(doing, err)
		}
		if absent(failures) {
			return fmt.Errorf("rules: %s: %w", doing, ErrAbsent)
		}
		if err := objection(doing, nil, failures); err != nil {
			return err
		}
	}
	return nil
}

func deleteFrom[E keyed](k *Kernel, doing, set string, deleted []E) error {
	keys, err := keysOf(deleted)
	if err != nil {
		return fmt.Errorf("rules: %s: %w", doing, err)
	}
	for part := range slices.Chunk(keys, batchSize) {
		if err := k.delete(doing, set, part); err != nil {
			return err
		}
	}
	return nil
}

// delete adds the elements before it deletes them, in one transaction: to delete what is not there fails, and a failed
// transaction makes the kernel wait until every packet in flight has left the ruleset, which takes milliseconds. No
// packet sees the addition. (NFT_MSG_DESTROYSETELEM, which would do, came with Linux 6.3.)
func (k *Kernel) delete(doing, set string, keys [][]byte) error {
	keys = merge(nil, keys) // an element can be deleted only once
	messages := elements(unix.NFT_MSG_NEWSETELEM, create, set, keys)
	messages = append(messages, elements(unix.NFT_MSG_DELSETELEM, remove, set, keys)...)
	failures, err := k.transact(messages, true)
	if err != nil {
		return explain(doing, err)
	}
	if absent(failures) {
		return nil
	}
	return objection(doing, nil, failures)
}

// absent tells whether elements could not be added because the set or the table is not there.
func absent(failures []failure) bool {
	return slices.ContainsFunc(failures, func(f failure) bool {
		return f.message != nil && f.message.kind == unix.NFT_MSG_NEWSETELEM && f.errno == unix.ENOENT
	})
}

// Calls lists the guard. ErrAbsent: there is no table.
func (k *Kernel) Calls() ([]Call, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys, err := k.keys(CallsSet)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("rules: list guard: %w", ErrAbsent)
	}
	if err != nil {
		return nil, explain("list guard", err)
	}
	calls := make([]Call, 0, len(keys))
	for _, key := range keys {
		if len(key) != callKeyLength {
			return nil, fmt.Errorf("rules: list guard: an element of %d bytes instead of %d: the set is not as Apply makes it", len(key), callKeyLength)
		}
		calls = append(calls, Call{
			Src:    netip.AddrFrom4([4]byte(key[0:4])),
			Dst:    netip.AddrFrom4([4]byte(key[4:8])),
			CallID: binary.BigEndian.Uint16(key[8:10]),
		})
	}
	return calls, nil
}

// keys lists the elements of one of our sets.
//
// The kernel lists a hash table in pieces, and finds the place where it stopped by counting. While the table grows or
// shrinks, which it does in the background for some milliseconds after many additions, the order changes between two
// pieces: elements come twice, and as many others not at all. So a list counts only when no element is in it twice.
func (k *Kernel) keys(set string) ([][]byte, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		keys, err := k.keysOnce(set)
		if err != nil || !repeats(keys) {
			return keys, err
		}
		if pause > time.Second {
			return nil, errMoving
		}
		time.Sleep(pause)
	}
}

func repeats(keys [][]byte) bool {
	seen := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		seen[string(key)] = struct{}{}
	}
	return len(seen) < len(keys)
}

func (k *Kernel) keysOnce(set string) ([][]byte, error) {
	replies, err := k.get(unix.NFT_MSG_GETSETELEM, netlink.Dump, named(func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_ELEM_LIST_SET, set)
	}))
	if err != nil {
		return nil, err
	}
	return parseKeys(replies), nil
}

// parseKeys takes the keys of elements out of a list.
func parseKeys(replies []netlink.Message) (keys [][]byte) {
	for _, r := range replies {
		for kind, list := range attributes(r) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, element := range nested(list) {
				for kind, key := range nested(element) {
					if kind != unix.NFTA_SET_ELEM_KEY {
						continue
					}
					for kind, value := range nested(key) {
						if kind == unix.NFTA_DATA_VALUE {
							keys = append(keys, value)
						}
					}
				}
			}
		}
	}
	return keys
}
