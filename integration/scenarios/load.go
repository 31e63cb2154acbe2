package main

import (
	"context"
	"encoding/hex"
	"io"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Many clients, each with a connection of its own, that ask the same again and again: `calls load ADDRESS COMMAND CLIENTS SECONDS ROWS
// EVERY`, the command in hexadecimal. Each asks EVERY so many seconds, or without a pause where these are 0. Says how many seconds each
// request took, GetFlightInfo and DoGet together and from when it was due, and all of them. An answer with another number of rows ends it.
func load(ctx context.Context, _ *flightsql.Client) {
	command := must(hex.DecodeString(os.Args[3]))
	clients, wanted := must(strconv.Atoi(os.Args[4])), must(strconv.ParseInt(os.Args[6], 10, 64))
	lasts, every := seconds(os.Args[5]), seconds(os.Args[7])
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	took := make([][]float64, clients)
	begin := make(chan struct{})
	var ready, done sync.WaitGroup
	for number := range took {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			client := must(flight.NewClientWithMiddlewareCtx(ctx, os.Args[2], nil, nil, plain))
			defer client.Close()
			// The connection is made by now.
			ask(ctx, client, command, wanted)
			ready.Done()
			<-begin
			// Not all at the same moments.
			began := time.Now()
			due := began.Add(every * time.Duration(number) / time.Duration(clients))
			for due.Before(began.Add(lasts)) {
				time.Sleep(time.Until(due))
				ask(ctx, client, command, wanted)
				took[number] = append(took[number], time.Since(due).Seconds())
				due = due.Add(every)
				if every == 0 {
					due = time.Now()
				}
			}
		}()
	}
	ready.Wait()
	began := time.Now()
	close(begin)
	done.Wait()
	say("seconds", time.Since(began).Seconds())
	times := []float64{}
	for _, own := range took {
		times = append(times, own...)
	}
	say("times", times)
}

func seconds(text string) time.Duration {
	return time.Duration(must(strconv.ParseFloat(text, 64)) * float64(time.Second))
}

func ask(ctx context.Context, client flight.Client, command []byte, wanted int64) {
	described := &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: command}
	info := must(client.GetFlightInfo(ctx, described))
	rows := must(flight.NewRecordReader(must(client.DoGet(ctx, info.Endpoint[0].Ticket))))
	defer rows.Release()
	var count int64
	for rows.Next() {
		count += rows.RecordBatch().NumRows()
	}
	if err := rows.Err(); err != nil && err != io.EOF {
		log.Fatal(err)
	}
	if count != wanted {
		log.Fatalf("an answer has %d rows", count)
	}
}
