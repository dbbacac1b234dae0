#!/bin/sh
# The main job in one go: a cluster from one file, a module in its registry, a pod that runs it.
# Set CTL to the cinderctl to use; everything else is found from here.
set -eu
CTL=${CTL:-cinderctl}
HERE=$(dirname "$0")
SPEC=$HERE/cluster.yaml

say() { printf '\n==> %s\n' "$*"; }

say "One file, one cluster: cinderctl apply -f $SPEC"
"$CTL" apply -f "$SPEC" --auto-approve

say "The module goes to the cluster's registry: cinderctl push hello-world.wasm localhost:5000/hello-world:v1"
"$CTL" push "$HERE/module/hello-world.wasm" localhost:5000/hello-world:v1

# The kubectl and the kubeconfig of this very cluster, whatever else the machine has.
KUBECTL=$("$CTL" binaries path kubectl)
KUBECONFIG=$("$CTL" get kubeconfigs -f "$SPEC" --path)
export KUBECONFIG

say "A pod that runs it: kubectl apply -f $HERE/k8s.yaml"
"$KUBECTL" delete pod hello-world --ignore-not-found
"$KUBECTL" apply -f "$HERE/k8s.yaml"
"$KUBECTL" wait --for=jsonpath='{.status.phase}'=Succeeded pod/hello-world --timeout=60s

say "kubectl get nodes"
"$KUBECTL" get nodes
say "kubectl get pods"
"$KUBECTL" get pods
say "kubectl logs hello-world"
"$KUBECTL" logs hello-world

cat <<EOF

==> What next
  kubectl get nodes -o wide                 the context is kubernetes-admin@cinder
  $CTL plan  -f $SPEC     nothing to change; edit the file and look again
  $CTL drift -f $SPEC     says what moved when you break something by hand
  $CTL status -f $SPEC    what runs, and where its logs are
  make quickstart-clean                     destroys the cluster
EOF
