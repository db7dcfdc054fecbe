// Package secure is TLS as the relay's peers set it up: certificates in files, which flags name.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
)

var (
	root        = flag.String("tls-root", "", "PEM file whose first certificate is the root; with it TLS is spoken")
	certificate = flag.String("tls-certificate", "", "PEM file with our certificate")
	key         = flag.String("tls-key", "", "PEM file with its key")
	version     = flag.String("tls-version", "", "the only version spoken: 1.2 or 1.3; both without it")
)

// Wanted tells whether the flags ask for TLS.
func Wanted() bool { return *root != "" }

// Server is how KubeArmor's feeder speaks: a client certificate is required, and verified against the root.
func Server() (*tls.Config, error) {
	config, roots, err := common()
	if err != nil {
		return nil, err
	}
	config.ClientCAs = roots
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

// Client is how karmor speaks: the server's certificate is verified against the root and for the name; ours is shown.
func Client(name string) (*tls.Config, error) {
	config, roots, err := common()
	if err != nil {
		return nil, err
	}
	config.RootCAs = roots
	config.ServerName = name
	return config, nil
}

func common() (*tls.Config, *x509.CertPool, error) {
	text, err := os.ReadFile(*root)
	if err != nil {
		return nil, nil, err
	}
	roots, err := Roots(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", *root, err)
	}
	config := &tls.Config{}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			return nil, nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	switch *version {
	case "":
	case "1.2":
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	case "1.3":
		config.MinVersion = tls.VersionTLS13
	default:
		return nil, nil, fmt.Errorf("-tls-version %q: it is 1.2 or 1.3", *version)
	}
	return config, roots, nil
}

// Roots is a pool of the first certificate alone, which is what KubeArmor takes from ca.crt.
func Roots(text []byte) (*x509.CertPool, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	first, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	return roots, nil
}
