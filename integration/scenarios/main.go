// Calls of Flight SQL that no driver makes by itself, by Arrow's client for Go: `calls COMMAND ADDRESS` says what each gave, a line
// of JSON for each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	all     = "select id from demo.main.t order by id"
	endless = "select a.value from generate_series(1, 1000000) a, generate_series(1, 1000000) b"
)

func main() {
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	cookies := []flight.ClientMiddleware{flight.NewClientCookieMiddleware()}
	client := must(flightsql.NewClientCtx(ctx, os.Args[2], nil, cookies, plain))
	defer client.Close()
	commands := map[string]func(context.Context, *flightsql.Client){
		"savepoints": savepoints, "cancel": cancel, "renew": renew, "options": options, "prepared": prepared,
		"load": load,
	}
	commands[os.Args[1]](ctx, client)
}

func savepoints(ctx context.Context, client *flightsql.Client) {
	transaction := must(client.BeginTransaction(ctx))
	insert := func(id int) {
		must(transaction.ExecuteUpdate(ctx, fmt.Sprintf("insert into demo.main.t values (%d)", id)))
	}
	within := func() []int64 { return read(ctx, client, must(transaction.Execute(ctx, all)).Endpoint[0].Ticket) }
	without := func() []int64 { return read(ctx, client, must(client.Execute(ctx, all)).Endpoint[0].Ticket) }
	insert(1)
	savepoint := must(transaction.BeginSavepoint(ctx, "s"))
	insert(2)
	say("marked", within())
	check(transaction.RollbackSavepoint(ctx, savepoint))
	insert(3)
	say("back", within())
	check(transaction.ReleaseSavepoint(ctx, savepoint))
	say("gone", status.Code(transaction.RollbackSavepoint(ctx, savepoint)).String())
	say("without", without())
	check(transaction.Commit(ctx))
	say("committed", without())
}

func cancel(ctx context.Context, client *flightsql.Client) {
	info := must(client.Execute(ctx, endless))
	rows := must(client.DoGet(ctx, info.Endpoint[0].Ticket))
	say("streams", rows.Next())
	asked := time.Now()
	say("said", must(client.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: info})).Status.String())
	for rows.Next() {
	}
	say("ended", status.Code(rows.Err()).String())
	say("seconds", time.Since(asked).Seconds())
}

func renew(ctx context.Context, client *flightsql.Client) {
	old := must(client.ExecutePoll(ctx, "select cast(42 as bigint) as v", nil)).Info.Endpoint[0]
	renewed := must(client.RenewFlightEndpoint(ctx, &flight.RenewFlightEndpointRequest{Endpoint: old}))
	say("longer", renewed.ExpirationTime.AsTime().After(old.ExpirationTime.AsTime()))
	say("rows", read(ctx, client, renewed.Ticket))
}

// Each kind of value in its turn, then what the session has.
func options(ctx context.Context, client *flightsql.Client) {
	set := func(name string, value any) {
		values := must(flight.NewSessionOptionValues(map[string]any{name: value}))
		said := must(client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: values}))
		errors := map[string]string{}
		for name, wrong := range said.Errors {
			errors[name] = wrong.Value.String()
		}
		say(fmt.Sprintf("%s %T", name, value), errors)
	}
	must(client.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{}))
	set("endpoints", int64(4))
	set("timeout", "30s")
	for _, value := range []any{true, 1.5, []string{"a", "b"}} {
		set("endpoints", value)
		set("catalog", value)
		set("no_such", value)
	}
	set("catalog", int64(7))
	kept := must(client.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})).SessionOptions
	say("kept", []string{kept["endpoints"].GetStringValue(), kept["timeout"].GetStringValue()})
	set("timeout", nil)
	say("unset", must(client.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})).SessionOptions["timeout"].GetStringValue())
}

// Whether each statement says that it writes, where it says anything of it.
func prepared(ctx context.Context, client *flightsql.Client) {
	for _, sql := range []string{all, "insert into demo.main.t values (?)", "delete from demo.main.t where id = ?", "begin"} {
		statement := must(client.Prepare(ctx, sql))
		if writes, told := statement.IsUpdate(); told {
			say(sql, writes)
		}
		check(statement.Close(ctx))
	}
}

// The whole numbers of a ticket.
func read(ctx context.Context, client *flightsql.Client, ticket *flight.Ticket) []int64 {
	rows := must(client.DoGet(ctx, ticket))
	defer rows.Release()
	numbers := []int64{}
	for rows.Next() {
		numbers = append(numbers, rows.RecordBatch().Column(0).(*array.Int64).Int64Values()...)
	}
	if err := rows.Err(); err != nil && err != io.EOF {
		log.Fatal(err)
	}
	return numbers
}

func say(name string, value any) {
	fmt.Println(string(must(json.Marshal(map[string]any{"name": name, "value": value}))))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
