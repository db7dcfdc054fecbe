// Command judge tells what Go's TLS makes of a certificate. It answers lines of JSON on standard input, in order, until
// that ends, each by a line of JSON.
//
// A question has "root" (PEM; its first certificate is the root), "certificate" (PEM; the leaf, then what it was sent
// with), "key" (PEM), "purpose" ("server" or "client": what the certificate's holder is), and "name" (a DNS name or an IP
// for which a server's certificate must be good). An answer has "accepted", whether the other side takes it in a handshake,
// and "reason", its error.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"relay.example/peers/secure"
)

type question struct {
	Root        string `json:"root"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Purpose     string `json:"purpose"`
	Name        string `json:"name"`
}

type answer struct {
	Accepted bool   `json:"accepted"`
	Reason   string `json:"reason"`
}

// anybody is a certificate that nobody looks at: a server needs one.
func anybody() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// connected is two ends of a connection. Not of net.Pipe, which holds nothing: both may speak at once.
func connected() (net.Conn, net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	here, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	there, err := listener.Accept()
	if err != nil {
		here.Close()
	}
	return here, there, err
}

// judge lets the holder and somebody who trusts the root shake hands; the error is what the latter says.
func judge(asked question) error {
	roots, err := secure.Roots([]byte(asked.Root))
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	pair, err := tls.X509KeyPair([]byte(asked.Certificate), []byte(asked.Key))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	here, there, err := connected()
	if err != nil {
		return err
	}
	defer here.Close()
	defer there.Close()
	var holder, judging *tls.Conn
	switch asked.Purpose {
	case "server":
		holder = tls.Server(here, &tls.Config{Certificates: []tls.Certificate{pair}})
		judging = tls.Client(there, &tls.Config{RootCAs: roots, ServerName: asked.Name})
	case "client":
		served, err := anybody()
		if err != nil {
			return err
		}
		holder = tls.Client(here, &tls.Config{
			InsecureSkipVerify: true,
			// In any case, also where the server's hints say that it is of no use.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		})
		judging = tls.Server(there, &tls.Config{
			Certificates: []tls.Certificate{served}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		})
	default:
		return fmt.Errorf("purpose %q: it is server or client", asked.Purpose)
	}
	go holder.Handshake()
	return judging.Handshake()
}

func run() error {
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		said := answer{Accepted: true}
		if err := judge(asked); err != nil {
			said = answer{Reason: err.Error()}
		}
		if err := out.Encode(said); err != nil {
			return err
		}
	}
	return lines.Err()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(2)
	}
}
