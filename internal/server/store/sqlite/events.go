package sqlite

import (
	"context"
	"database/sql"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// AppendEvents stores events in their order.
func (s *Store) AppendEvents(ctx context.Context, events ...fleet.Event) error {
	if len(events) == 0 {
		return nil
	}
	rows, err := encodeEvents(events)
	if err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error { return s.insertEventRows(ctx, tx, rows) })
}

// eventRow is an event as it is stored.
type eventRow struct {
	at                            int64
	agent, configuration, rollout string
	text                          []byte
}

func (r *eventRow) fields() []any {
	return []any{r.at, r.agent, r.configuration, r.rollout, string(r.text)}
}

func encodeEvents(events []fleet.Event) ([]eventRow, error) {
	rows := make([]eventRow, len(events))
	for i, e := range events {
		e.Time = e.Time.UTC()
		text, err := encode(&e)
		if err != nil {
			return nil, err
		}
		rows[i] = eventRow{nanos(e.Time), e.Agent, e.Configuration, e.Rollout, text}
	}
	return rows, nil
}

func (s *Store) insertEvents(ctx context.Context, tx *sql.Tx, events []fleet.Event) error {
	rows, err := encodeEvents(events)
	if err != nil {
		return err
	}
	return s.insertEventRows(ctx, tx, rows)
}

func (s *Store) insertEventRows(ctx context.Context, tx *sql.Tx, rows []eventRow) error {
	return execMany(ctx, tx.StmtContext(ctx, s.prepared.saveEvent), rows, (*eventRow).fields)
}

// eventQueries has a statement for each of agent, configuration, rollout that may be asked for, so that each uses its index.
var eventQueries = map[string]string{
	"":              `TRUE`,
	"agent":         `agent = :agent AND agent <> ''`,
	"configuration": `configuration = :configuration AND configuration <> ''`,
	"rollout":       `rollout = :rollout AND rollout <> ''`,
}

// ListEvents returns those of the query.
func (s *Store) ListEvents(ctx context.Context, q store.EventQuery) ([]fleet.Event, error) {
	by := ""
	switch {
	case q.Agent != "":
		by = "agent"
	case q.Rollout != "":
		by = "rollout"
	case q.Configuration != "":
		by = "configuration"
	}
	order := `DESC`
	if q.OldestFirst {
		order = `ASC`
	}
	rows, err := s.read.QueryContext(ctx, `SELECT id, document FROM events WHERE `+eventQueries[by]+`
			AND (:agent = '' OR agent = :agent) AND (:configuration = '' OR configuration = :configuration)
			AND (:rollout = '' OR rollout = :rollout) AND (:before <= 0 OR id < :before) AND id > :after
		ORDER BY id `+order+` LIMIT :limit`,
		sql.Named("agent", q.Agent), sql.Named("configuration", q.Configuration), sql.Named("rollout", q.Rollout),
		sql.Named("before", q.Before), sql.Named("after", q.After), sql.Named("limit", limited(q.Limit)))
	type row struct {
		id   int64
		text document[fleet.Event]
	}
	all, err := collect(rows, err, func(r *row) []any { return []any{&r.id, &r.text} })
	events := make([]fleet.Event, 0, len(all))
	for _, r := range all {
		r.text.value.ID = r.id
		events = append(events, r.text.value)
	}
	return events, err
}
