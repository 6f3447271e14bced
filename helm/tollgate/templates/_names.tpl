{{- define "tollgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of what is made: the release's, with ours unless it is in there.  Short enough for "-migrations" behind it. */}}
{{- define "tollgate.fullname" -}}
{{- $name := include "tollgate.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods that serve, and none of those that migrate, test or store. */}}
{{- define "tollgate.gateways" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "tollgate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tollgate.secret" -}}
{{- default (include "tollgate.fullname" .) .Values.secret.existing -}}
{{- end -}}

{{- define "tollgate.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "tollgate.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tollgate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tollgate.locked" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "tollgate.container" -}}
image: {{ include "tollgate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{ include "tollgate.locked" . }}
envFrom:
  - secretRef: {name: {{ include "tollgate.secret" . }}}
{{- if or .Values.redis.bundled .Values.postgres.bundled .Values.env }}
env:
  {{- if .Values.redis.bundled }}
  - {name: REDIS_URL, value: "redis://{{ include "tollgate.fullname" . }}-redis:6379/0"}
  {{- end }}
  {{- if .Values.postgres.bundled }}
  - name: POSTGRES_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ include "tollgate.secret" . }}, key: POSTGRES_PASSWORD}}
  - {name: DATABASE_URL, value: "postgresql://tollgate:$(POSTGRES_PASSWORD)@{{ include "tollgate.fullname" . }}-postgres/tollgate"}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/tollgate, readOnly: true}
  - {name: data, mountPath: /var/lib/tollgate}
{{- end -}}

{{/* Rights of a pod whose processes run as this user. */}}
{{- define "tollgate.rights" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tollgate.pod" -}}
serviceAccountName: {{ include "tollgate.account" . }}
{{ include "tollgate.rights" 10001 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tollgate.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}
