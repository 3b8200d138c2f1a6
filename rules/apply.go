package rules

import (
	"errors"
	"fmt"
	"maps"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Elements are what a table has besides the ruleset: the guard, and the flows of the control connections that are known.
type Elements struct {
	Calls []Call
	Flows []Flow
}

// keys are the elements as the kernel has them, by their set.
func (e Elements) keys() (map[string][][]byte, error) {
	calls, err := keysOf(e.Calls)
	if err != nil {
		return nil, err
	}
	flows, err := keysOf(e.Flows)
	return map[string][][]byte{CallsSet: calls, ConnectionsSet: flows}, err
}

// Apply is ApplyWith for elements of the guard alone.
func (k *Kernel) Apply(r Ruleset, calls ...Call) error { return k.ApplyWith(r, Elements{Calls: calls}) }

// ApplyWith brings about the ruleset, and with it these elements, if any, besides those that are there.
//
// It is atomic: packets meet the table as it was or as it shall be, and when the kernel objects to anything nothing has
// changed. It is idempotent: a table that is as it should be is left untouched, counters and handles included. A table
// that differs (of another version or configuration, edited by hand) is replaced by one with the same elements
// and counts.
func (k *Kernel) ApplyWith(r Ruleset, e Elements) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	const doing = "apply ruleset"
	keys, err := e.keys()
	if err != nil {
		return fmt.Errorf("rules: %s: %w", doing, err)
	}
	found, generation, err := k.read(r.table)
	if err != nil {
		return explain(doing, err)
	}
	k.fresh = len(found) == 0
	if len(differences(r.table.wanted(), found)) == 0 {
		k.applied, k.verified, k.left = &r, generation, generation
		var messages []message
		for _, x := range r.table.sets {
			messages = append(messages, elements(unix.NFT_MSG_NEWSETELEM, create, x.name, keys[x.name])...)
		}
		if len(messages) == 0 {
			return nil
		}
		k.left++
		return k.commit(doing, messages)
	}

	counts := map[string]Counter{}
	if len(found) > 0 {
		if counts, err = k.counts(); err != nil {
			return explain(doing+": keep counters", err)
		}
		for _, x := range r.table.sets {
			// Of a set of another layout nothing can be kept.
			if _, ours := keys[x.name]; !ours || found["set "+x.name] != x.describe() {
				continue
			}
			kept, err := k.keys(x.name)
			if err != nil {
				return explain(doing+": keep elements of set "+x.name, err)
			}
			keys[x.name] = merge(keys[x.name], kept)
		}
	}
	k.applied, k.verified = nil, 0
	if err := k.commit(doing, r.table.messages(keys, counts)); err != nil {
		return err
	}
	// Every transaction of anybody raises the generation by one.
	k.applied, k.left = &r, generation+1
	return nil
}

// Fresh tells whether the last Apply found no table: then the guard has the elements that were given to it, and no others.
func (k *Kernel) Fresh() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh
}

// Untouched tells whether nothing at all has changed in the namespace's nftables since the last Apply. Additions to
// the guard are changes too.
func (k *Kernel) Untouched() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	generation, err := k.generation()
	if err != nil {
		return false, explain("look whether nftables have changed", err)
	}
	return k.applied != nil && generation == k.left, nil
}

// merge adds to keys those that were there, and leaves none twice.
func merge(keys, kept [][]byte) [][]byte {
	all := map[string]bool{}
	for _, key := range append(keys, kept...) {
		all[string(key)] = true
	}
	keys = nil
	for key := range maps.Keys(all) {
		keys = append(keys, []byte(key))
	}
	return keys
}

// Diff says in words in what the kernel's table differs from a ruleset; nothing if Apply would do nothing.
func (k *Kernel) Diff(r Ruleset) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found, _, err := k.read(r.table)
	if err != nil {
		return nil, explain("compare ruleset", err)
	}
	return differences(r.table.wanted(), found), nil
}

// Check has the kernel judge a ruleset as Apply would send it, and installs nothing. An *UnsupportedError in the error
// says what the kernel lacks.
func (k *Kernel) Check(r Ruleset) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	messages := r.table.messages(nil, nil)
	failures, err := k.transact(messages, false)
	if err != nil {
		return explain("check ruleset", err)
	}
	return objection("check ruleset", messages, failures)
}

// Present tells whether the table is there and as Apply left it. While nothing at all has changed in the namespace's
// nftables since the last look, this costs one small question to the kernel; otherwise the table is read and compared.
// The guard's elements are not looked at (see Calls). Before Apply, Present tells whether there is a table of that name.
func (k *Kernel) Present() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	const doing = "look for table ip " + TableName
	if k.applied == nil {
		found, _, err := k.read(table{})
		if err != nil {
			return false, explain(doing, err)
		}
		return len(found) > 0, nil
	}
	generation, err := k.generation()
	if err != nil {
		return false, explain(doing, err)
	}
	if generation == k.verified {
		return true, nil
	}
	found, generation, err := k.read(k.applied.table)
	if err != nil {
		return false, explain(doing, err)
	}
	if len(differences(k.applied.table.wanted(), found)) > 0 {
		return false, nil
	}
	k.verified = generation
	return true, nil
}

// Remove deletes the table, and nothing else. That there is none is fine.
func (k *Kernel) Remove() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	const doing = "remove ruleset"
	k.applied, k.verified = nil, 0
	failures, err := k.transact([]message{deleteTable()}, true)
	if err != nil {
		return explain(doing, err)
	}
	if len(failures) == 1 && failures[0].message != nil && failures[0].errno == unix.ENOENT {
		return nil
	}
	return objection(doing, nil, failures)
}

// Queue tells the queue of the table that is there, whoever put it there. false: there is no table, or it does not say.
func (k *Kernel) Queue() (uint16, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	replies, err := k.get(unix.NFT_MSG_GETTABLE, 0, named())
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, explain("look for the queue of table ip "+TableName, err)
	}
	var queue uint16
	for _, r := range replies {
		for kind, v := range attributes(r) {
			if kind != tableUserdata {
				continue
			}
			text, ok := userdata.GetString(v, userdata.TypeComment)
			if _, err := fmt.Sscanf(text, tableComment, &queue); ok && err == nil {
				return queue, true, nil
			}
		}
	}
	return 0, false, nil
}
