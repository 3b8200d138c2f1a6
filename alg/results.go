package alg

// The result and error codes of the messages in words, with their numbers.

// Result says what became of the request for a control connection.
func (m StartControlConnectionReply) Result() string {
	return startResult(m.ResultCode(), m.ErrorCode())
}

// ReasonText says why the control connection ends.
func (m StopControlConnectionRequest) ReasonText() string { return stopReason(m.Reason()) }

// Result says what became of the call.
func (m OutgoingCallReply) Result() string { return outgoingResult(m.ResultCode(), m.ErrorCode()) }

// Result says what became of the call.
func (m IncomingCallReply) Result() string { return incomingResult(m.ResultCode(), m.ErrorCode()) }

// Result says why the call ended.
func (m CallDisconnectNotify) Result() string {
	return disconnectResult(m.ResultCode(), m.ErrorCode())
}
