{{/* Names and parts that several templates share. */}}

{{- define "evocache.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "evocache.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evocache.labels" -}}
{{ include "evocache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The image of a dict with `image` and the root as `root`. */}}
{{- define "evocache.image" -}}
{{- if .image.digest }}{{ printf "%s@%s" .image.repository .image.digest }}{{ else }}{{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) }}{{ end }}
{{- end }}

{{- define "evocache.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" }}{{ required "tls.secretName is needed by tls.mode secret" .Values.tls.secretName }}{{ else }}{{ include "evocache.name" . }}-tls{{ end }}
{{- end }}

{{- define "evocache.tokenSecret" -}}
{{- if eq .Values.tokens.mode "secret" }}{{ required "tokens.secretName is needed by tokens.mode secret" .Values.tokens.secretName }}{{ else }}{{ include "evocache.name" . }}-tokens{{ end }}
{{- end }}

{{- define "evocache.url" -}}
{{ ternary "http" "https" (eq .Values.tls.mode "none") }}://{{ include "evocache.name" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{/* Names in the certificate, as a list in JSON. */}}
{{- define "evocache.dnsNames" -}}
{{- $name := include "evocache.name" . -}}
{{- $own := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) "localhost" -}}
{{- concat $own .Values.tls.extraNames | toJson }}
{{- end }}

{{- define "evocache.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "evocache.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The credentials of a caller, as variables and mounts; a dict with `root` and the token's key as `key`. */}}
{{- define "evocache.callerEnv" -}}
- name: EVOCACHE_COORDINATOR
  value: {{ include "evocache.url" .root }}
- name: EVOCACHE_TOKEN_FILE
  value: /etc/evocache/token/{{ .key }}
{{- if ne .root.Values.tls.mode "none" }}
- name: EVOCACHE_CA
  value: /etc/evocache/ca/ca.crt
{{- end }}
{{- end }}

{{- define "evocache.callerMounts" -}}
- {name: token, mountPath: /etc/evocache/token, readOnly: true}
{{- if ne .Values.tls.mode "none" }}
- {name: ca, mountPath: /etc/evocache/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "evocache.callerVolumes" -}}
- name: token
  secret:
    secretName: {{ include "evocache.tokenSecret" .root }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: {{ .key }}}]
{{- if ne .root.Values.tls.mode "none" }}
- name: ca
  secret:
    secretName: {{ include "evocache.tlsSecret" .root }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end }}
