package alg

// Outcome puts the result and error codes of the message at the beginning of b
// into words, with their numbers. It is empty for a message that has none, or
// that is not there whole.
func Outcome(b []byte) string {
	if m, ok := AsStartControlConnectionReply(b); ok {
		return startResult(m.ResultCode(), m.ErrorCode())
	}
	if m, ok := AsStopControlConnectionRequest(b); ok {
		return stopReason(m.Reason())
	}
	if m, ok := AsOutgoingCallReply(b); ok {
		return outgoingResult(m.ResultCode(), m.ErrorCode())
	}
	if m, ok := AsIncomingCallReply(b); ok {
		return incomingResult(m.ResultCode(), m.ErrorCode())
	}
	if m, ok := AsCallDisconnectNotify(b); ok {
		return disconnectResult(m.ResultCode(), m.ErrorCode())
	}
	return ""
}
