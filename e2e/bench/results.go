package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Results are all figures of a run. Every part is a file of its own.
type Results struct {
	Data    *Data
	Fast    *Data // through a bridge
	Control *Control
	Scale   *Scale
	Size    *Size
}

// Data is the data plane.
type Data struct {
	Machine    Machine      `json:"machine"`
	Payload    int          `json:"payload_bytes"`
	Rates      []Rate       `json:"rates"`
	Large      int          `json:"large_payload_bytes"`
	Throughput []Rate       `json:"throughput"`
	Latency    []Percentile `json:"latency"`
	Watched    []Rate       `json:"watched,omitempty"` // of the fast path, where the firewall sees packets at the bridge's port
}

// Rate is packets a second of one core, in rounds that all rates with the same
// Stage share.
type Rate struct {
	Kind      Kind      `json:"kind"`
	Stage     int       `json:"stage"` // the number of calls that was to be measured
	Calls     int       `json:"calls"` // that carried packets
	Failed    int       `json:"failed_calls,omitempty"`
	Direction Direction `json:"direction"`
	Sent      int       `json:"sent"`
	Delivered int       `json:"delivered"`
	CPU       Sample    `json:"packets_per_core_second"`
	Wall      Sample    `json:"packets_per_second"` // with whatever else the machine did
}

// Percentile is how long one packet or message takes, in microseconds.
type Percentile struct {
	What      string    `json:"what,omitempty"` // kind of message
	Kind      Kind      `json:"kind"`
	Calls     int       `json:"calls,omitempty"`
	Direction Direction `json:"direction,omitempty"`
	Count     int       `json:"count"` // in a round
	Median    Sample    `json:"p50_us"`
	P99       Sample    `json:"p99_us"`
}

// Control is the control plane.
type Control struct {
	Machine  Machine      `json:"machine"`
	Setup    []Setup      `json:"setup"`
	Messages []Percentile `json:"messages"`
}

// Setup is how fast calls are set up, each with a control connection of its own.
type Setup struct {
	Kind    Kind   `json:"kind"`
	Clients int    `json:"clients"` // at once
	Calls   int    `json:"calls"`   // in a round
	Rate    Sample `json:"calls_per_second"`
	// Processor time for a call, in microseconds: of everything, clients and server
	// included, and of the daemon alone.
	All    Sample `json:"cpu_us_per_call"`
	Daemon Sample `json:"daemon_us_per_call"`
}

// Scale is many calls at once.
type Scale struct {
	Machine Machine `json:"machine"`
	Points  []Point `json:"points"`
	Idle    Idle    `json:"idle"`
}

// Point is so many calls, up at once.
type Point struct {
	Calls        int     `json:"calls"`
	Connections  int     `json:"connections"`
	SetupSeconds float64 `json:"setup_seconds"`
	// StatusSeconds is the time of the program "status", as a table and as JSON.
	StatusSeconds     float64 `json:"status_seconds"`
	StatusJSONSeconds float64 `json:"status_json_seconds"`
	// Resident is what the daemon takes right after, and AtRest when it has been
	// quiet for a while. PerCall is what heap and stacks take at rest, more than
	// without calls.
	Resident int     `json:"resident_bytes"`
	AtRest   int     `json:"resident_bytes_at_rest"`
	PerCall  float64 `json:"bytes_per_call_at_rest"`
	// RestartSeconds is from the start of a new daemon until it is ready, and
	// Adopted how many calls it then knows.
	StopSeconds    float64 `json:"stop_seconds"`
	RestartSeconds float64 `json:"restart_seconds"`
	RestartCPU     float64 `json:"restart_cpu_seconds"` // of the daemon, until then
	Adopted        int     `json:"adopted_calls"`
	Carried        int     `json:"carried_after_restart"`
	ClearSeconds   float64 `json:"clear_seconds"`
}

// Idle is a daemon whose calls are up and silent on their control connections.
type Idle struct {
	Calls           int     `json:"calls"`
	Seconds         float64 `json:"seconds"`
	CPU             float64 `json:"share_of_a_core"`
	WakeupsPerHour  float64 `json:"wakeups_per_hour"`
	CallsStillThere int     `json:"calls_still_there"`
}

// Size is what the daemon takes without a call.
type Size struct {
	Machine  Machine  `json:"machine"`
	Binaries []Binary `json:"binaries"`
	Resident Sample   `json:"resident_bytes"`
	Private  Sample   `json:"private_bytes"` // of them, heap and stacks
	Ready    Sample   `json:"start_to_ready_ms"`
}

// Binary is the stripped program for an architecture.
type Binary struct {
	Architecture string `json:"architecture"`
	Bytes        int64  `json:"bytes"`
	Compressed   int64  `json:"xz_bytes"`
}

// files are the parts by the names of their files.
func (r *Results) files() map[string]any {
	return map[string]any{"data.json": &r.Data, "fast.json": &r.Fast, "control.json": &r.Control, "scale.json": &r.Scale, "size.json": &r.Size}
}

// Load reads results. Parts that were never measured stay nil.
func Load(directory string) (*Results, error) {
	r := new(Results)
	for name, part := range r.files() {
		b, err := os.ReadFile(filepath.Join(directory, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, part)
		}
		if err != nil {
			return nil, fmt.Errorf("read results %s: %w", name, err)
		}
	}
	return r, nil
}

// save writes one part.
func save(directory, name string, part any) error {
	b, err := json.MarshalIndent(part, "", "\t")
	if err == nil {
		err = os.MkdirAll(directory, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(directory, name), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write results %s: %w", name, err)
	}
	return nil
}
