package alg

import "fmt"

// Result and error codes that are written or compared (RFC 2637, sections 2.2,
// 2.8, 2.10 and 2.16).
const (
	resultOK           = 1 // "connected", "connect", "successful"
	resultGeneralError = 2
	errorNoResource    = 4
)

// words returns the words for a code, or the number alone.
func words(table map[byte]string, what string, code byte) string {
	if w, ok := table[code]; ok {
		return fmt.Sprintf("%s (%s %d)", w, what, code)
	}
	return fmt.Sprintf("%s %d", what, code)
}

// result puts result and error code into words. The error code has a meaning
// only where the result is a general error.
func result(table map[byte]string, code, err byte) string {
	if code == resultGeneralError && err != 0 {
		return fmt.Sprintf("%s, %s", words(generalErrors, "error", err), words(nil, "result", code))
	}
	return words(table, "result", code)
}

// General error codes, section 2.16.
var generalErrors = map[byte]string{
	1: "no control connection yet",
	2: "length wrong",
	3: "reserved field or value out of range",
	4: "no resources",
	5: "Call ID is invalid",
	6: "vendor's own error in the PAC",
}

// Section 2.2.
func startResult(code, err byte) string {
	return result(map[byte]string{
		1: "successful",
		2: "general error",
		3: "control connection exists already",
		4: "not authorised",
		5: "protocol version not supported",
	}, code, err)
}

// Section 2.3.
func stopReason(code byte) string {
	return words(map[byte]string{
		1: "general request",
		2: "protocol version not supported",
		3: "shutting down",
	}, "reason", code)
}

// Section 2.8.
func outgoingResult(code, err byte) string {
	return result(map[byte]string{
		1: "connected",
		2: "general error",
		3: "no carrier",
		4: "busy",
		5: "no dial tone",
		6: "timed out",
		7: "not accepted",
	}, code, err)
}

// Section 2.10.
func incomingResult(code, err byte) string {
	return result(map[byte]string{
		1: "connect",
		2: "general error",
		3: "not accepted",
	}, code, err)
}

// Section 2.13.
func disconnectResult(code, err byte) string {
	return result(map[byte]string{
		1: "lost carrier",
		2: "general error",
		3: "disconnected by its administrator",
		4: "Call-Clear-Request",
	}, code, err)
}
