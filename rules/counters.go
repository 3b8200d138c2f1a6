package rules

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Counter is what has passed a rule.
type Counter struct {
	Packets, Bytes uint64
}

// Counters reads the named counters: Queued, Guarded, Unmapped and, with GuardAll, Blocked. ErrAbsent: there is
// no table.
func (k *Kernel) Counters() (map[string]Counter, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	counts, err := k.counts()
	if err != nil {
		return nil, explain("read counters", err)
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("rules: read counters: %w", ErrAbsent)
	}
	return counts, nil
}

func (k *Kernel) counts() (map[string]Counter, error) {
	replies, err := k.get(unix.NFT_MSG_GETOBJ, netlink.Dump, named())
	if err != nil {
		return nil, err
	}
	counts := map[string]Counter{}
	for _, r := range replies {
		if o := parseObject(r); o.table == TableName && o.kind == unix.NFT_OBJECT_COUNTER {
			counts[o.name] = o.count
		}
	}
	return counts, nil
}

// An object is a named object of nftables: a counter, a conntrack helper, or something we know only by its type.
type object struct {
	table, name string
	kind        uint32
	userdata    []byte
	data        []byte  // the attributes of its kind
	count       Counter // of a counter
}

func parseObject(m netlink.Message) object {
	var o object
	for attribute, v := range attributes(m) {
		switch attribute {
		case unix.NFTA_OBJ_TABLE:
			o.table = text(v)
		case unix.NFTA_OBJ_NAME:
			o.name = text(v)
		case unix.NFTA_OBJ_TYPE:
			o.kind = number(v)
		case objectUserdata:
			o.userdata = v
		case unix.NFTA_OBJ_DATA:
			o.data = v
			for attribute, v := range nested(v) {
				if len(v) != 8 {
					continue
				}
				switch attribute {
				case unix.NFTA_COUNTER_PACKETS:
					o.count.Packets = binary.BigEndian.Uint64(v)
				case unix.NFTA_COUNTER_BYTES:
					o.count.Bytes = binary.BigEndian.Uint64(v)
				}
			}
		}
	}
	return o
}
