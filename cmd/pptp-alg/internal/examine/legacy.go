package examine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// This file reads the tables of iptables-legacy, which nftables does not list, as chains
// like those of nftables. The structures are those of linux/netfilter_ipv4/ip_tables.h.

// legacyFamily is a family of this package's own, for chains of the older tables.
const legacyFamily = 0xff

const (
	sizeofHead   = 84  // struct ipt_ip
	sizeofEntry  = 112 // struct ipt_entry
	sizeofExtra  = 32  // struct xt_entry_match and xt_entry_target, before their data
	hooks        = 5   // NF_INET_PRE_ROUTING to NF_INET_POST_ROUTING
	flagGoto     = 0x02
	sizeofTables = 32 // a table's name
)

// legacyTables names the older tables that are in use in this network namespace.
func legacyTables() []string {
	b, _ := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	return strings.Fields(string(b))
}

// readLegacy adds the older tables to a ruleset. It does not load what is not in use.
func (r *ruleset) readLegacy() error {
	var errs []error
	for _, table := range legacyTables() {
		if err := r.readLegacyTable(table); err != nil {
			errs = append(errs, fmt.Errorf("read iptables-legacy's table %s: %w", table, err))
		}
	}
	return errors.Join(errs...)
}

func (r *ruleset) readLegacyTable(table string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	ask := func(option uintptr, b []byte) error {
		copy(b[:sizeofTables], table)
		size := uint32(len(b))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.SOL_IP, option,
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
		if e != 0 {
			return e
		}
		return nil
	}
	// struct ipt_getinfo and struct ipt_get_entries, whose entries are aligned like a u64.
	const getInfo, getEntries = 64, 65
	info := make([]byte, sizeofTables+4+4*hooks+4*hooks+8)
	if err := ask(getInfo, info); err != nil {
		return err
	}
	number := func(i int) uint32 { return binary.NativeEndian.Uint32(info[sizeofTables+4*i:]) }
	size := number(2 + 2*hooks)
	align := int(unsafe.Alignof(uint64(0)))
	start := (sizeofTables + 4 + align - 1) &^ (align - 1)
	b := make([]byte, start+int(size))
	binary.NativeEndian.PutUint32(b[sizeofTables:], size)
	if err := ask(getEntries, b); err != nil {
		return err // EAGAIN: it was changed meanwhile
	}
	begins, ends := map[int]uint32{}, map[int]bool{}
	for h := range uint32(hooks) {
		if number(0)&(1<<h) != 0 {
			begins[int(number(1+int(h)))] = h
			ends[int(number(1+hooks+int(h)))] = true
		}
	}
	return r.addLegacy(table, b[start:], begins, ends)
}

// addLegacy makes chains of a table's entries. begins has the hooks by the offset of their
// chain's first entry; at ends are the policies.
func (r *ruleset) addLegacy(table string, b []byte, begins map[int]uint32, ends map[int]bool) error {
	names := map[int]string{} // of chains of the user's, by the offset of their first rule
	err := eachEntry(b, func(offset, next int, e []byte, target string, data []byte) {
		if target == "ERROR" && len(data) >= 1 {
			names[next] = unix.ByteSliceToString(data)
		}
	})
	if err != nil {
		return err
	}
	var c *chain
	return eachEntry(b, func(offset, next int, e []byte, target string, data []byte) {
		if hook, base := begins[offset]; base {
			c = &chain{hooked: true, hook: hook, kind: "filter", priority: legacyPriority(table, hook)}
			if table == "nat" {
				c.kind = "nat"
			}
			c.chainName = chainName{legacyFamily, table, [hooks]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}[hook]}
			r.chains[c.chainName] = c
		} else if name, first := names[offset]; first {
			c = &chain{chainName: chainName{legacyFamily, table, name}}
			r.chains[c.chainName] = c
		}
		if c == nil || target == "ERROR" {
			return
		}
		verdict := legacyVerdict(e, target, data, next, names)
		if ends[offset] {
			c.drop = verdict != nil && verdict.Kind == expr.VerdictDrop
			return
		}
		list := rule{{name: "match", match: &xmatch{headMatch, 0, e[:sizeofHead]}}}
		_ = eachExtra(e[sizeofEntry:], func(name string, revision byte, data []byte) {
			list = append(list, expression{name: "match", match: &xmatch{name, uint32(revision), data}})
		})
		if verdict != nil {
			list = append(list, expression{name: "immediate", any: verdict})
		} else if target != "" {
			unknown := xt.Unknown(data)
			list = append(list, expression{name: "target", any: &expr.Target{Name: target, Info: &unknown}})
		}
		c.rules, c.handles = append(c.rules, list), append(c.handles, 0)
	})
}

// legacyVerdict is what the standard target does, nil for another target and for none.
func legacyVerdict(e []byte, target string, data []byte, next int, names map[int]string) *expr.Verdict {
	if target != "" || len(data) < 4 {
		return nil
	}
	switch v := int32(binary.NativeEndian.Uint32(data)); {
	case v == -1-0: // NF_DROP
		return &expr.Verdict{Kind: expr.VerdictDrop}
	case v == -1-1: // NF_ACCEPT
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case v == -1-4: // XT_RETURN
		return &expr.Verdict{Kind: expr.VerdictReturn}
	case v >= 0 && names[int(v)] != "" && int(v) != next:
		kind := expr.VerdictJump
		if e[82]&flagGoto != 0 {
			kind = expr.VerdictGoto
		}
		return &expr.Verdict{Kind: kind, Chain: names[int(v)]}
	}
	return nil // a rule without a target goes on with the next
}

// eachEntry calls each for the entries of a table.
func eachEntry(b []byte, each func(offset, next int, e []byte, target string, data []byte)) error {
	for offset := 0; offset < len(b); {
		if len(b)-offset < sizeofEntry {
			return errTruncated
		}
		at := int(binary.NativeEndian.Uint16(b[offset+88:]))
		size := int(binary.NativeEndian.Uint16(b[offset+90:]))
		if at < sizeofEntry || size < at+sizeofExtra || offset+size > len(b) {
			return errTruncated
		}
		e := b[offset : offset+size]
		name := unix.ByteSliceToString(e[at+2 : at+sizeofExtra-1])
		each(offset, offset+size, e[:at], name, e[at+sizeofExtra:])
		offset += size
	}
	return nil
}

// eachExtra calls each for the matches of an entry.
func eachExtra(b []byte, each func(name string, revision byte, data []byte)) error {
	for len(b) > 0 {
		if len(b) < sizeofExtra {
			return errTruncated
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < sizeofExtra || size > len(b) {
			return errTruncated
		}
		each(unix.ByteSliceToString(b[2:sizeofExtra-1]), b[sizeofExtra-1], b[sizeofExtra:size])
		b = b[size:]
	}
	return nil
}

var errTruncated = errors.New("the kernel's answer is cut off")

// legacyPriority is where a table is among the chains of a hook.
func legacyPriority(table string, hook uint32) int32 {
	switch table {
	case "raw":
		return -300
	case "mangle":
		return -150
	case "security":
		return 50
	case "nat":
		if hook == unix.NF_INET_PRE_ROUTING || hook == unix.NF_INET_LOCAL_OUT {
			return -100
		}
		return 100
	}
	return 0
}
