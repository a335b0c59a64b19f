{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Names of cluster-scoped objects: two releases of one name in two namespaces must not share them. */}}
{{- define "operator.clusterName" -}}
{{- $full := include "operator.fullname" . }}
{{- if eq .Release.Namespace "pgdog-system" }}{{ $full }}{{ else }}{{ printf "%s-%s" $full .Release.Namespace | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "operator.account" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false: serviceAccount.name must name an account" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{- $own := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- mergeOverwrite (dict) .Values.commonLabels $own (include "operator.podLabels" . | fromYaml) | toYaml }}
{{- end }}

{{- /* Without versions: a new chart alone restarts nothing. */}}
{{- define "operator.podLabels" -}}
{{- $own := dict "app.kubernetes.io/component" "operator" "app.kubernetes.io/part-of" "pgdog" }}
{{- mergeOverwrite (dict) .Values.commonLabels .Values.podLabels $own (include "operator.selector" . | fromYaml) | toYaml }}
{{- end }}

{{- /* metadata of an object: list of root, name, further labels, further annotations, and the namespace: "own", "none", or its name. */}}
{{- define "operator.metadata" -}}
{{- $root := index . 0 -}}
{{- $namespace := index . 4 -}}
name: {{ index . 1 }}
{{- if eq $namespace "own" }}
namespace: {{ $root.Release.Namespace }}
{{- else if ne $namespace "none" }}
namespace: {{ $namespace }}
{{- end }}
labels:
  {{- mergeOverwrite (include "operator.labels" $root | fromYaml) (index . 2) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) $root.Values.commonAnnotations (index . 3) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* An image: list of root and its values. */}}
{{- define "operator.image" -}}
{{- $root := index . 0 }}
{{- with index . 1 }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $root.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* Secret with the webhook's certificate. */}}
{{- define "operator.webhookSecret" -}}
{{- with .Values.webhook.certificate }}
{{- if eq .mode "existingSecret" }}
{{- required "webhook.certificate.mode is existingSecret: webhook.certificate.existingSecret must name a Secret" .existingSecret }}
{{- else }}
{{- include "operator.fullname" $ }}-webhook-tls
{{- end }}
{{- end }}
{{- end }}

{{- /* What the operator does with the objects of the namespaces that it watches. */}}
{{- define "operator.rules" -}}
- apiGroups: [pgdog.dev]
  resources: [pgdogclusters]
  verbs: [get, list, watch]
- apiGroups: [pgdog.dev]
  resources: [pgdogclusters/status]
  verbs: [patch]
# Where Postgres is, and which proxies there are.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Children. Secrets hold passwords of users, which it reads, and configurations and certificates, which it writes. They go with their
# PgDogCluster, by the garbage collector.
- apiGroups: [""]
  resources: [secrets, services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# Those that can be switched off while it lives.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
