package calllog

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// sink is where records go.
type sink interface {
	write(*Record) error
	close()
}

// again is how long a sink that failed is left alone.
const again = time.Second

// Log writes records to a sink. It is for one goroutine.
type Log struct {
	open   func() (sink, error)
	sink   sink
	where  string
	say    func(err error, lost uint64)
	failed time.Time // when the sink failed last
	lost   uint64
}

// New returns a log to "journal", "syslog", "udp:HOST:PORT", "tcp:HOST:PORT" or
// the path of a file. It fails if the sink is none of these; one that is down is
// tried again later. say is told when the sink fails, and, with a nil error and
// how many records were lost, when it works again.
func New(to string, say func(err error, lost uint64)) (*Log, error) {
	l := &Log{where: to, say: say}
	kind, address, _ := strings.Cut(to, ":")
	switch {
	case to == "journal":
		l.open = func() (sink, error) { return openJournal(journalSocket) }
	case to == "syslog":
		l.open = func() (sink, error) { return openSyslog("unixgram", syslogSocket) }
	case filepath.IsAbs(to):
		l.open = func() (sink, error) { return openFile(to) }
	case kind == "udp" || kind == "tcp":
		l.open = func() (sink, error) { return openSyslog(kind, address) }
	default:
		return nil, fmt.Errorf("no call log can be written to %q", to)
	}
	return l, nil
}

// Open opens the sink ahead of the first record, so that one that does not work is known at once.
func (l *Log) Open() {
	s, err := l.open()
	if err != nil {
		l.say(fmt.Errorf("write the call log to %s: %w", l.where, err), 0)
		l.failed = time.Now().Add(-again) // the first record tries again
		return
	}
	l.sink = s
}

// Write writes a record. It waits for the sink, some seconds at most.
func (l *Log) Write(r Record) {
	if l.sink == nil && !l.failed.IsZero() && time.Since(l.failed) < again {
		l.lost++
		return
	}
	// What broke since the last record may work again at once: a syslog server
	// that was restarted has closed its connection.
	var err error
	for range 2 {
		if err = l.try(&r); err == nil {
			return
		}
		if l.sink != nil {
			l.sink.close()
			l.sink = nil
		}
	}
	l.lost++
	if l.failed.IsZero() {
		l.say(fmt.Errorf("write the call log to %s: %w", l.where, err), 0)
	}
	l.failed = time.Now()
}

// try writes what was lost and the record, once.
func (l *Log) try(r *Record) (err error) {
	if l.sink == nil {
		if l.sink, err = l.open(); err != nil {
			l.sink = nil
			return err
		}
	}
	if l.lost > 0 {
		if err := l.sink.write(&Record{Time: r.Time, Event: "lost", Lost: l.lost}); err != nil {
			return err
		}
	}
	if !l.failed.IsZero() {
		l.say(nil, l.lost)
	}
	l.lost, l.failed = 0, time.Time{}
	return l.sink.write(r)
}

// Missed says that records were lost before they came here.
func (l *Log) Missed(n uint64) { l.lost += n }

// Close closes the sink.
func (l *Log) Close() {
	if l.sink != nil {
		l.sink.close()
		l.sink = nil
	}
}
