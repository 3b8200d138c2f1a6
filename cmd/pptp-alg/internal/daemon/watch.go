package daemon

import (
	"context"
	"encoding/json"
	"fmt"

	"pptp-alg/cmd/pptp-alg/internal/status"
)

// watchQueue is how many events wait for a client that watches.
const watchQueue = 256

// tellEvents sends events to a client of the control socket until it leaves, or the
// daemon ends. It runs in the client's goroutine. The argument is a status.Filter.
func (d *daemon) tellEvents(ctx context.Context, args json.RawMessage, send func(any) error) error {
	var f status.Filter
	if len(args) > 0 {
		if err := json.Unmarshal(args, &f); err != nil {
			return fmt.Errorf("not a filter: %w", err)
		}
	}
	s := d.news.Subscribe(watchQueue)
	defer s.Close()
	lost := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-s.Events():
			if !ok {
				return nil
			}
			lost += e.Lost
			switch {
			case e.Call != nil && !f.Call(*e.Call), e.Connection != nil && !f.Connection(*e.Connection),
				e.Call == nil && e.Connection == nil && f != (status.Filter{}):
				continue
			}
			e.Lost, lost = lost, 0
			if err := send(e); err != nil {
				return err
			}
		}
	}
}
