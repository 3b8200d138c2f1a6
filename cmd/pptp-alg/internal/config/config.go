package config

import (
	"log/slog"
	"slices"
	"strings"
	"time"
)

// DefaultSocket is where the daemon listens for status requests.
const DefaultSocket = "/run/pptp-alg/control.sock"

// DefaultState is where the daemon writes down what a restart needs, as long as the
// control socket is where it is by default too; see StatePath.
const DefaultState = "/run/pptp-alg/control.state"

// Config is what the daemon works by.
type Config struct {
	Queue     uint16   // the nfnetlink queue
	Ports     []uint16 // TCP ports of control connections, at least one
	Socket    string   // path of the control socket
	State     string   // path of the state file; empty: none. See StatePath
	Guard     Guard
	Anchor    Anchor
	LogFormat LogFormat
	LogLevel  slog.Level
	CallIDs   CallIDs
	FastPath  FastPath
	Limits    Limits

	// SegmentsPerClient is how many segments of control connections a client may
	// send in a second; 0 is no limit.
	SegmentsPerClient uint32
	Timeouts          Timeouts
	Remember          int // how many ended calls `status` can still show

	CallLog CallLog
	Capture Capture
	Metrics Metrics
}

// Guard says which enhanced GRE packets are dropped. The values are those of
// package rules.
type Guard string

const (
	GuardCalls Guard = "calls" // those of known calls that conntrack would not translate
	GuardAll   Guard = "all"   // also those that belong to no known call
)

// Anchor says which conntrack helper control connections get, to keep them out
// of flow tables.
type Anchor string

const (
	AnchorAuto Anchor = "auto" // one that does nothing, or what comes next to it
	AnchorFTP  Anchor = "ftp"  // the kernel's FTP helper
	AnchorOff  Anchor = "off"
)

// FastPath says whether programs at the devices carry packets of calls in the place of conntrack.
type FastPath string

const (
	FastPathOff FastPath = "off"
	FastPathOn  FastPath = "on"
)

// LogFormat is the form of log lines.
type LogFormat string

const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// CallIDs is the inclusive range that translated Call IDs are taken from. It never
// contains 0.
type CallIDs struct{ First, Last uint16 }

// Limits bound what clients can make the daemon keep. 0 is no limit.
type Limits struct {
	CallsPerClient       int
	CallsPerConnection   int
	Calls                int
	ConnectionsPerClient int
	Connections          int
}

// Timeouts of calls.
type Timeouts struct {
	HalfOpen time.Duration // an announced call without an answer ends after this
	Clearing time.Duration // a call that was asked to be cleared ends after this
	Grace    time.Duration // GRE of an ended call still passes for this
	Rest     time.Duration // a translated Call ID is not given again for this
	Silence  time.Duration // a call of which one side sends no GRE for this is warned of
	Unheard  time.Duration // a control connection whose entry was put back, and that then says nothing for this, is over
}

// Default returns the settings without a file. The limits are by the machine's memory.
func Default() Config {
	return Config{
		Queue:     1723,
		Ports:     []uint16{1723}, // RFC 2637, section 1.3
		Socket:    DefaultSocket,
		State:     DefaultState,
		Guard:     GuardCalls,
		Anchor:    AnchorAuto,
		LogFormat: LogText,
		LogLevel:  slog.LevelInfo,
		CallIDs:   CallIDs{First: 1, Last: 65535},
		FastPath:  FastPathOff,
		Limits:    limitsFor(machineMemory()),
		// A call takes some six. It is far beyond what any client does for long,
		// and a part of what a small router can read.
		SegmentsPerClient: 2000,
		Timeouts: Timeouts{
			// A PAC may dial a telephone number before it answers.
			HalfOpen: 75 * time.Second,
			Clearing: 15 * time.Second,
			Grace:    3 * time.Second,
			Rest:     60 * time.Second,
			// pppd gives up after 30 s without an answer.
			Silence: 30 * time.Second,
			// Keepalives come every minute (RFC 2637, section 3.1.4), those of TCP every two hours.
			Unheard: 30 * time.Minute,
		},
		Remember: 200,
		CallLog:  CallLog{ServerAddress: true},
		Capture:  Capture{Total: 32, Connection: 64},
	}
}

// StatePath returns where the state file is: beside the control socket, whose lock
// is for both, unless another place was chosen. Empty: there is none.
func (c *Config) StatePath() string {
	if c.State != DefaultState {
		return c.State
	}
	return strings.TrimSuffix(c.Socket, ".sock") + ".state"
}

// Clone returns a copy that shares nothing.
func (c Config) Clone() Config {
	c.Ports = slices.Clone(c.Ports)
	return c
}
