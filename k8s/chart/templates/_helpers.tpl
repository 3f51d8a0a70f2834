{{- define "parseq.appName" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "parseq.name" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "parseq.appName" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "parseq.appName" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the pods of this release, and of no other. */}}
{{- define "parseq.selector" -}}
app.kubernetes.io/name: {{ include "parseq.appName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of what may be the same in the next version. */}}
{{- define "parseq.labels" -}}
{{ include "parseq.selector" . }}
app.kubernetes.io/part-of: parseq
{{- end }}

{{- define "parseq.versionedLabels" -}}
{{ include "parseq.labels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "parseq.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default (print $.Chart.AppVersion .tagSuffix) .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* PARSEQ_ settings: what the values say, and what follows from them. */}}
{{- define "parseq.settings" -}}
{{- $settings := dict }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $settings $name (kindIs "float64" $value | ternary (toJson $value) (toString $value)) }}
{{- end }}
{{- end }}
{{- if .Values.artifact.sha256 }}
{{- $_ := set $settings "PARSEQ_ARTIFACT" "/artifact/model.onnx" }}
{{- end }}
{{- if .Values.apiKeys.existingSecret }}
{{- $_ := set $settings "PARSEQ_API_KEYS_FILE" "/keys/keys" }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- define "parseq.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
