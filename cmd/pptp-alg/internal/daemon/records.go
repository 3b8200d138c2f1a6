package daemon

import (
	"encoding/binary"
	"net/netip"
	"time"

	"pptp-alg/alg"
	"pptp-alg/nat"
)

// The records of the journal. A coder writes or reads a value with the same code, so that both agree.
// Numbers are of variable length (encoding/binary), addresses have four bytes, texts begin with their
// length. Times are relative to the boot of the machine, so that neither a change of the clock nor the
// time between two processes falsifies them; suspended time counts.

// Kinds of keys.
const (
	keyNumbers    = 'N' // the highest numbers of calls and connections
	keyMapping    = 'M' // by the GRE that arrives
	keyCall       = 'K' // by number
	keyConnection = 'C' // by number
)

// maxText is how much of a text is kept.
const maxText = 300

// coder appends values to b or, when it reads, takes them from b.
type coder struct {
	b       []byte
	reading bool
	bad     bool      // there is something else in b
	boot    time.Time // of the machine
}

func (c *coder) fail() {
	c.bad, c.b = true, nil
}

// done reports whether everything was read and nothing is left.
func (c *coder) done() bool { return !c.bad && len(c.b) == 0 }

func number[T ~uint8 | ~uint16 | ~uint32 | ~uint64](c *coder, v *T) {
	if !c.reading {
		c.b = binary.AppendUvarint(c.b, uint64(*v))
		return
	}
	x, n := binary.Uvarint(c.b)
	if n <= 0 || uint64(T(x)) != x {
		c.fail()
		return
	}
	c.b, *v = c.b[n:], T(x)
}

func (c *coder) flag(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	if number(c, &n); n > 1 {
		c.fail()
	}
	*v = n == 1
}

func (c *coder) int(v *int) {
	n := uint32(*v)
	number(c, &n)
	*v = int(n)
}

func (c *coder) bytes(v *[]byte) {
	n := uint16(len(*v))
	if number(c, &n); !c.reading {
		c.b = append(c.b, *v...)
		return
	}
	if int(n) > len(c.b) {
		c.fail()
		return
	}
	*v, c.b = c.b[:n:n], c.b[n:]
}

func (c *coder) text(v *string) {
	b := []byte((*v)[:min(len(*v), maxText)])
	c.bytes(&b)
	*v = string(b)
}

// time has an unset time as 0.
func (c *coder) time(v *time.Time) {
	var d int64
	if !v.IsZero() {
		if d = int64(v.Sub(c.boot)); d == 0 {
			d = 1
		}
	}
	if !c.reading {
		c.b = binary.AppendVarint(c.b, d)
		return
	}
	d, n := binary.Varint(c.b)
	if n <= 0 {
		c.fail()
		return
	}
	if c.b = c.b[n:]; d != 0 {
		*v = c.boot.Add(time.Duration(d))
	}
}

func (c *coder) addr(v *netip.Addr) {
	if !c.reading {
		a := v.As4()
		c.b = append(c.b, a[:]...)
		return
	}
	if len(c.b) < 4 {
		c.fail()
		return
	}
	*v, c.b = netip.AddrFrom4([4]byte(c.b)), c.b[4:]
}

func (c *coder) addrPort(v *netip.AddrPort) {
	a, p := v.Addr(), v.Port()
	c.addr(&a)
	number(c, &p)
	*v = netip.AddrPortFrom(a, p)
}

func (c *coder) path(v *nat.Path) {
	for i := range v.Hosts {
		c.addr(&v.Hosts[i].Real)
		c.addr(&v.Hosts[i].Told)
	}
	c.zone(&v.Zone)
	number(c, &v.Mark)
}

func (c *coder) side(v *nat.Side) {
	if number(c, v); *v > nat.Server {
		c.fail()
		*v = nat.Client
	}
}

func (c *coder) zone(v *nat.Zone) {
	number(c, &v.ID)
	number(c, &v.Direction)
}

func (c *coder) mapping(v *nat.MappingRecord) {
	c.path(&v.Path)
	c.side(&v.Side)
	number(c, &v.Real)
	number(c, &v.Told)
	number(c, &v.Twin)
	c.flag(&v.Resting)
	c.time(&v.Due)
	number(c, &v.Past.Packets)
	number(c, &v.Past.Bytes)
}

func (c *coder) held(v *nat.HeldRecord) {
	number(c, &v.Real)
	number(c, &v.Told)
	c.flag(&v.Spare)
	c.flag(&v.Promised)
}

// callState is a call and the number of its connection.
type callState struct {
	connection uint64
	nat.CallRecord
}

func (c *coder) call(v *callState) {
	number(c, &v.connection)
	number(c, &v.ID)
	number(c, &v.Direction)
	c.side(&v.Initiator)
	number(c, &v.State)
	c.flag(&v.Refused)
	for _, t := range [...]*time.Time{&v.Since, &v.Up, &v.Over, &v.Due} {
		c.time(t)
	}
	c.text(&v.Reason)
	for i := range v.Ends {
		e := &v.Ends[i]
		if c.flag(&e.There); e.There {
			c.held(&e.HeldRecord)
		}
	}
}

// connectionState is a control connection and what each end sees of the other.
type connectionState struct {
	alg.Record
	told  [2]netip.AddrPort
	local uint8 // which of the path's addresses were this router's: see owned
}

func (c *coder) connection(v *connectionState) {
	number(c, &v.ID)
	c.addrPort(&v.Flow.Client)
	c.addrPort(&v.Flow.Server)
	c.zone(&v.Flow.Zone)
	c.path(&v.Path)
	number(c, &v.State)
	c.time(&v.Since)
	c.flag(&v.Midstream)
	c.text(&v.Unparsed)
	c.text(&v.Reason)
	number(c, &v.local)
	for i := range v.told {
		c.addrPort(&v.told[i])
		number(c, &v.Opened[i])
		c.flag(&v.Known[i])
		c.stream(&v.Streams[i])
	}
}

func (c *coder) stream(v *alg.StreamRecord) {
	if c.flag(&v.Started); !v.Started {
		return
	}
	c.flag(&v.Seeking)
	number(c, &v.Next)
	number(c, &v.Edge)
	if c.flag(&v.Fin); v.Fin {
		number(c, &v.FinSeq)
	}
	n := uint16(len(v.Marks))
	if number(c, &n); c.reading {
		if int(n) > len(c.b) {
			c.fail()
			return
		}
		v.Marks = make([]alg.Mark, n)
	}
	for i := range v.Marks {
		number(c, &v.Marks[i].Seq)
		number(c, &v.Marks[i].Byte)
	}
	if c.flag(&v.Forgot); v.Forgot {
		number(c, &v.Floor)
	}
	there := v.Partial != nil
	if c.flag(&there); there {
		if c.reading {
			v.Partial = new(alg.PartialRecord)
		}
		c.partial(v.Partial)
	}
}

func (c *coder) partial(v *alg.PartialRecord) {
	c.bytes(&v.Head)
	c.int(&v.N)
	c.int(&v.Size)
	c.int(&v.Excess)
	c.flag(&v.Typed)
	c.field(&v.Own)
	c.field(&v.Peer)
	number(c, &v.Call)
	number(c, &v.Mapping)
	c.text(&v.Err)
	c.flag(&v.Promised)
	c.flag(&v.Refuse)
}

func (c *coder) field(v *alg.FieldRecord) {
	number(c, &v.Value)
	c.flag(&v.Known)
	number(c, &v.High)
	c.flag(&v.Sent)
	there := v.Held != nil
	if c.flag(&there); there {
		if c.reading {
			v.Held = new(nat.HeldRecord)
		}
		c.held(v.Held)
	}
}

// numbers are the highest that were given.
type numbers struct{ call, connection uint64 }

func (c *coder) numbers(v *numbers) {
	number(c, &v.call)
	number(c, &v.connection)
}

// greKey is a nat.Tuple without pointers: there are hundreds of thousands of them when many calls are taken over.
type greKey struct {
	src, dst [4]byte
	callID   uint16
}

func greKeyOf(src, dst netip.Addr, callID uint16) greKey { return greKey{src.As4(), dst.As4(), callID} }

func (t greKey) nat() nat.Tuple {
	return nat.Tuple{Src: netip.AddrFrom4(t.src), Dst: netip.AddrFrom4(t.dst), CallID: t.callID}
}

// place is how the GRE of a mapping arrives: the key of its record.
type place struct {
	greKey
	zone uint16
}

func placeAt(t nat.Tuple, zone uint16) place { return place{greKeyOf(t.Src, t.Dst, t.CallID), zone} }

func placeOf(m *nat.Mapping) place { return placeAt(m.Arrives(), m.ArrivalZone()) }

func (p place) key() []byte {
	k := append([]byte{keyMapping}, p.src[:]...)
	k = append(k, p.dst[:]...)
	k = binary.BigEndian.AppendUint16(k, p.zone)
	return binary.BigEndian.AppendUint16(k, p.callID)
}

func numberKey(kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kind}, n)
}
