// Dtms-watch registers a trade (when one is given), prints every event as one line of JSON, and resumes after a break
// exactly where it stopped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	dtmsv1 "dtms/clients/go/gen/dtms/v1"
)

// options of the command line.
type options struct {
	address, token string
	from           uint64
	registration   *dtmsv1.Registration
}

func parse(arguments []string) (options, error) {
	var given options
	var tokenFile, side string
	flags := flag.NewFlagSet("dtms-watch", flag.ContinueOnError)
	flags.StringVar(&given.address, "address", "", "host:port of the service")
	flags.StringVar(&given.token, "token", "", "token of this client")
	flags.StringVar(&tokenFile, "token-file", "", "file that holds the token, instead of --token")
	flags.Uint64Var(&given.from, "from", 0, "first revision wanted; 0 begins with a snapshot")

	trade := &dtmsv1.Registration{}
	flags.Uint64Var(&trade.Ticket, "ticket", 0, "position to register; 0 only watches")
	flags.StringVar(&trade.AccountId, "account", "", "login@server; may be empty where the service has one account")
	flags.StringVar(&trade.Symbol, "symbol", "", "symbol as the broker names it")
	flags.StringVar(&side, "side", "", "buy or sell")
	flags.Float64Var(&trade.EntryPrice, "entry", 0, "entry price")
	flags.Float64Var(&trade.Volume, "volume", 0, "lots")
	flags.StringVar(&trade.StrategyType, "strategy", "", "strategy type; one that the Universal Manager knows gives it the trade")
	sl := flags.Float64("sl", 0, "stop; left out means none")
	tp := flags.Float64("tp", 0, "target; left out means none")
	if err := flags.Parse(arguments); err != nil {
		return given, err
	}

	if given.address == "" {
		return given, errors.New("--address is required")
	}
	if tokenFile != "" {
		text, err := os.ReadFile(tokenFile)
		if err != nil {
			return given, err
		}
		given.token = strings.TrimSpace(string(text))
	}
	if given.token == "" {
		return given, errors.New("--token or --token-file is required")
	}
	if trade.Ticket == 0 {
		return given, nil
	}
	sides := map[string]dtmsv1.Side{"buy": dtmsv1.Side_SIDE_BUY, "sell": dtmsv1.Side_SIDE_SELL}
	known := false
	if trade.Side, known = sides[side]; !known {
		return given, fmt.Errorf("--side is %q: buy or sell", side)
	}
	flags.Visit(func(set *flag.Flag) {
		switch set.Name {
		case "sl":
			trade.Sl = sl
		case "tp":
			trade.Tp = tp
		}
	})
	given.registration = trade
	return given, nil
}

func run(ctx context.Context, given options) error {
	dtms, err := dial(given.address, given.token)
	if err != nil {
		return err
	}
	defer dtms.close()
	if given.registration != nil {
		if err := dtms.register(ctx, given.registration); err != nil {
			return fmt.Errorf("register %d: %w", given.registration.Ticket, err)
		}
	}
	next, err := dtms.watch(ctx, given.from, os.Stdout)
	fmt.Fprintf(os.Stderr, "to go on where this ended: --from %d\n", next)
	if ctx.Err() != nil {
		return nil // stopped by hand
	}
	return err
}

func main() {
	given, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, given)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dtms-watch:", err)
		os.Exit(1)
	}
}
