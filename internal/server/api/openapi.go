package api

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var document []byte

func openAPI(w http.ResponseWriter, _ *request) error {
	write(w, http.StatusOK, "application/yaml", document)
	return nil
}
