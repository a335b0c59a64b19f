{{- define "cluster.name" -}}
{{- $name := default .Release.Name .Values.name }}
{{- if gt (len $name) 45 }}
{{- fail (printf "the name %s has more than 45 characters: the names of the objects made from it would be longer than 63" $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{- /* metadata of an object: list of root, name, further labels, further annotations. */}}
{{- define "cluster.metadata" -}}
{{- $root := index . 0 -}}
{{- $own := dict "app.kubernetes.io/managed-by" $root.Release.Service "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
{{- with mergeOverwrite (dict) $root.Values.commonLabels (index . 2) $own }}
labels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with mergeOverwrite (dict) $root.Values.commonAnnotations (index . 3) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
