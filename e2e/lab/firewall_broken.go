package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Firewalls that keep PPTP from getting through, or may.

// DropProtocol drops what is forwarded of an IP protocol.
func DropProtocol(protocol byte) Piece {
	return func(f *firewall) {
		f.rule("forward", just(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}))
	}
}

// DropProtocolFrom drops what comes in from a device of an IP protocol.
func DropProtocolFrom(in string, protocol byte) Piece {
	return func(f *firewall) {
		f.rule("forward", inDevice(in), just(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Verdict{Kind: expr.VerdictDrop}))
	}
}

// RejectPorts rejects connections to a range of TCP ports, by a set of intervals, in a
// chain of its own.
func RejectPorts(first, last uint16) Piece {
	return func(f *firewall) {
		away := f.conn.AddChain(&nftables.Chain{Table: f.table, Name: "away"})
		f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: away, Exprs: just(&expr.Reject{Type: 0, Code: 3})})
		set := &nftables.Set{Table: f.table, Anonymous: true, Constant: true, Interval: true, KeyType: nftables.TypeInetService}
		if err := f.conn.AddSet(set, []nftables.SetElement{
			{Key: be16(0), IntervalEnd: true}, {Key: be16(first)}, {Key: be16(last + 1), IntervalEnd: true},
		}); err != nil {
			panic(err)
		}
		f.rule("forward", just(
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{6}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			&expr.Verdict{Kind: expr.VerdictJump, Chain: "away"}))
	}
}

// AcceptStates is "ct state vmap { established : accept, related : accept }", as
// OpenWrt's firewall has it.
func AcceptStates() Piece {
	return func(f *firewall) {
		state := func(bit uint32) []byte { return []byte{byte(bit), 0, 0, 0} }
		verdict := &expr.Verdict{Kind: expr.VerdictAccept}
		set := &nftables.Set{Table: f.table, Anonymous: true, Constant: true, IsMap: true,
			KeyType: nftables.TypeCTState, DataType: nftables.TypeVerdict}
		if err := f.conn.AddSet(set, []nftables.SetElement{
			{Key: state(expr.CtStateBitESTABLISHED), VerdictData: verdict}, {Key: state(expr.CtStateBitRELATED), VerdictData: verdict},
		}); err != nil {
			panic(err)
		}
		f.rule("forward", just(&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}))
	}
}
