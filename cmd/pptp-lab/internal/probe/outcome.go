package probe

import "fmt"

// Outcome is what a probe ends with. The numbers are exit codes: scripts rely
// on them, so they stay what they are.
type Outcome int

// The outcomes, step by step.
const (
	Works            Outcome = 0
	Failed           Outcome = 1 // of this machine: no root, no such address
	Unreachable      Outcome = 10
	TCPRefused       Outcome = 11
	TCPFiltered      Outcome = 12
	ControlRefused   Outcome = 20
	ControlSilent    Outcome = 21
	CallRefused      Outcome = 30
	CallSilent       Outcome = 31
	GRENotLeaving    Outcome = 40
	GRENotReturning  Outcome = 41
	WrongPeer        Outcome = 42
	NotAuthenticated Outcome = 50
	PPPFailed        Outcome = 51
)

// outcomes are in the order of the steps; the words are for --help and for the
// last line of a probe.
var outcomes = []struct {
	Outcome
	words string
}{
	{Works, "PPTP gets through"},
	{Failed, "the probe itself failed (raw sockets need root)"},
	{Unreachable, "there is no way to the server"},
	{TCPRefused, "TCP is refused: nobody listens on the port, or a firewall says so"},
	{TCPFiltered, "TCP is filtered: nothing answers, or a firewall says so"},
	{ControlRefused, "the server refused the control connection"},
	{ControlSilent, "the port is open, but nobody speaks PPTP there"},
	{CallRefused, "the call was refused"},
	{CallSilent, "the call request was not answered"},
	{GRENotLeaving, "GRE does not get from here to the server"},
	{GRENotReturning, "GRE does not come back from the server, or never reached it"},
	{WrongPeer, "GRE comes, but not from the peer that was called"},
	{NotAuthenticated, "GRE gets through, but the login failed"},
	{PPPFailed, "GRE gets through, but PPP failed"},
}

func (o Outcome) String() string {
	for _, k := range outcomes {
		if k.Outcome == o {
			return k.words
		}
	}
	return fmt.Sprintf("outcome %d", int(o))
}

// Codes lists the exit codes for --help.
func Codes() string {
	s := ""
	for _, o := range outcomes {
		s += fmt.Sprintf("  %2d  %s\n", int(o.Outcome), o.words)
	}
	return s
}

// The words of RFC 2637 for results: of Start-Control-Connection-Reply
// (section 2.2), of Outgoing-Call-Reply (2.8), and general errors (2.16).
var (
	startResults = map[uint8]string{2: "general error", 3: "a control connection from here exists already", 4: "not authorized", 5: "protocol version not supported"}
	callResults  = map[uint8]string{2: "general error", 3: "no carrier", 4: "busy", 5: "no dial tone", 6: "time-out", 7: "administratively prohibited"}
	errorCodes   = map[uint8]string{1: "not connected", 2: "bad format", 3: "bad value", 4: "no resources", 5: "bad Call ID", 6: "error of the PAC's own"}
)

// words says what a result means.
func words(results map[uint8]string, result, code uint8) string {
	s := results[result]
	if s == "" {
		s = "unknown result"
	}
	s = fmt.Sprintf("%s (result %d", s, result)
	if code != 0 || result == 2 {
		s += fmt.Sprintf(", error %d", code)
		if e := errorCodes[code]; e != "" {
			s += ": " + e
		}
	}
	return s + ")"
}
