package ways

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watch reads a socket's news until it is closed, and hands them over. lost is called when some were.
func (w *Ways) watch(events *netlink.Conn, news func(netlink.Message), lost func()) {
	for {
		messages, err := events.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost()
		case err != nil:
			var failed *netlink.OpError
			if errors.As(err, &failed) && failed.Timeout() {
				continue
			}
			w.mu.Lock()
			closed := w.closed
			if !closed { // no answer is to be trusted any more
				w.deaf = fmt.Errorf("changes of routes and devices are not heard of any more: %w", err)
			}
			w.mu.Unlock()
			if !closed {
				w.tell()
			}
			return
		}
		for _, m := range messages {
			news(m)
		}
	}
}

// when tells of news that matter. matters says whether a message can have changed an answer, and forgets what it made wrong.
func (w *Ways) when(matters func(netlink.Message) bool) func(netlink.Message) {
	return func(m netlink.Message) {
		if matters(m) {
			w.tell()
		}
	}
}

// lost is for news that can have been anything.
func (w *Ways) lost() {
	w.mu.Lock()
	w.listed = false
	w.forget()
	w.mu.Unlock()
	w.tell()
}

// tell puts a piece of news into the channel, if none is there.
func (w *Ways) tell() {
	select {
	case w.changes <- struct{}{}:
	default:
	}
}

// forget drops everything that was learned, but that routes are for a type of service. The mutex is held.
func (w *Ways) forget() {
	w.links, w.arrives, w.hops, w.answers = map[int]link{}, map[int]error{}, map[hop]bool{}, map[Question]answer{}
	w.stations, w.ports, w.gone = map[Station]*spot{}, map[int]link{}, map[Station]bool{}
	w.rules, w.policies, w.known, w.settings, w.asked = nil, nil, false, nil, asked{set: map[uint32]struct{}{}}
}

// route says whether a message of rtnetlink matters. Devices that nobody has asked for don't, nor do their filters: they
// come and go all the time where there are containers, and no packet of a call can take them before a route leads there. Those of a
// bridge's port concern only who is there, and move them. Nor does
// news of a device in which nothing changed that matters here, as wireless ones send for every station.
func (w *Ways) route(m netlink.Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	relevant := true
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		if p, ok := parsePort(m); ok {
			if old := w.ports[p.index]; w.isPort(p.index) && (p.state != old.state || p.locked != old.locked) {
				w.portChanged(p.index)
			}
			return false
		}
		l, ok := parseLink(m)
		if ok && w.isPort(l.index) && l != w.ports[l.index] {
			w.portChanged(l.index)
		}
		if old := w.links[l.index]; ok && w.uses(l.index) && l != old && l.asWay() == old.asWay() {
			w.links[l.index] = l
			w.moveAll(func(s Station, _ *spot) bool { return s.Bridge == l.index })
		}
		if ok && !w.uses(l.index) && l.usable() == nil {
			select {
			case w.appeared <- struct{}{}:
			default:
			}
		}
		if relevant = ok && w.uses(l.index) && l.asWay() != w.links[l.index].asWay(); ok && !relevant && !w.uses(l.index) {
			relevant = w.settings != nil && w.settings.linkdown && !l.port // its routes may begin to be used, of which no news tell
		}
	case unix.RTM_DELLINK:
		if relevant = len(m.Data) >= unix.SizeofIfInfomsg && m.Data[0] == unix.AF_UNSPEC; relevant {
			index := int(int32(binary.NativeEndian.Uint32(m.Data[4:8])))
			if relevant = w.uses(index); w.isPort(index) {
				w.portChanged(index)
			}
		}
	case unix.RTM_NEWNETCONF, rtmDelNetconf:
		s, ok := parseSettings(m)
		relevant = ok && (s.index < 0 || w.uses(s.index)) // below 0: of all devices, of new ones
	case unix.RTM_NEWADDR:
		relevant = false // the routes that come with it tell
	case unix.RTM_NEWCHAIN, unix.RTM_DELCHAIN:
		relevant = false // they come and go with their first and last filter, also with ours
	case unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		f, ok := parseFilter(m)
		ok = ok && (!f.ours() || w.byOthers(m))
		if relevant = ok && (f.index == tcSharedBlock || w.uses(f.index)); ok && w.isPort(f.index) {
			w.portChanged(f.index)
		}
	case unix.RTM_NEWQDISC: // one without filters does nothing, unless it shares others'
		f, ok := parseFilter(m)
		if relevant = ok && f.shared && w.uses(f.index); ok && f.shared && w.isPort(f.index) {
			w.portChanged(f.index)
		}
	case unix.RTM_DELQDISC: // with its filters
		f, ok := parseFilter(m)
		relevant = ok && (w.arrives[f.index] != nil || f.kind == "clsact" && w.byOthers(m) && w.uses(f.index))
		if ok && w.isPort(f.index) && (w.refusedAt(f.index) || w.byOthers(m)) {
			w.portChanged(f.index)
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		p, ok := parsePrefix(m)
		relevant = ok && w.asked.in(p)
		w.services = w.services || ok && m.Data[3] != 0
	}
	if relevant {
		w.forget()
	}
	return relevant
}

// byOthers reports whether somebody else has done what only we do, where we do it.
func (w *Ways) byOthers(m netlink.Message) bool { return w.port != 0 && m.Header.PID != w.port }

// uses reports whether a part of an answer was that the device is as it is.
func (w *Ways) uses(index int) bool {
	_, ok := w.links[index]
	return ok
}

// anything is for news that always matter.
func (w *Ways) anything(netlink.Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
	return true
}
